// Command whoami tells who answers: the sample service of the house. It serves
// HTTP and UDP on one port and is its own client, so that a container without a
// shell can look around. It never keeps anything.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
)

// version is set by the linker.
var version = "1"

const usage = `usage: whoami                      serve HTTP and UDP on $PORT (80)
       whoami get [-n N] URL       fetch URL N times, a new connection each
       whoami udp [-n N] ADDR:PORT ask over UDP N times
       whoami lookup NAME          print the addresses of NAME
       whoami echo                 write what it reads, until that ends
       whoami exit CODE            end at once
`

func main() {
	os.Exit(run(os.Args[1:]))
}

// run returns the exit status: 0 done, 1 failed, 2 wrong usage.
func run(args []string) int {
	if len(args) == 0 {
		return report(serve())
	}
	if args[0] == "exit" && len(args) == 2 {
		code, err := strconv.Atoi(args[1])
		if err == nil {
			return code
		}
	}
	command, known := map[string]func([]string) error{"get": get, "udp": udp, "lookup": lookup, "echo": echo}[args[0]]
	if !known {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	return report(command(args[1:]))
}

func report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "whoami:", err)
	if _, wrong := err.(usageError); wrong {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	return 1
}

// echo writes what it reads.
func echo([]string) error {
	_, err := io.Copy(os.Stdout, os.Stdin)
	return err
}

// usageError is a command line that makes no sense.
type usageError string

func (u usageError) Error() string { return string(u) }
