package runtimetest

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Program is the path of the test program in the suite's image.
const Program = "/program"

// Image is the name of the suite's image.
const Image = "shoal/runtimetest:latest"

// ready is what run and stubborn print once signals find them prepared.
const ready = "ready"

// Main is the program in the suite's image. What to do is its arguments:
//
//	run              until a signal
//	stubborn         as run, but SIGTERM does nothing
//	exit N           end at once with the code N
//	print TEXT N     write TEXT N times to standard output and once to standard error, then end
//	env              print the environment, user and directory, then end
//	files PATH…      print files, then end
//	chatter          print a line every millisecond
//	eat              take memory until it is killed
func Main(args []string) int {
	if len(args) == 0 {
		args = []string{"run"}
	}
	switch args[0] {
	case "exit":
		return number(args, 1)
	case "print":
		for range number(args, 2) {
			fmt.Println(args[1])
		}
		fmt.Fprintln(os.Stderr, args[1])
	case "env":
		directory, err := os.Getwd()
		fmt.Printf("uid=%d gid=%d wd=%s %v\n", os.Getuid(), os.Getgid(), directory, err)
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "files":
		for _, path := range args[1:] {
			raw, err := os.ReadFile(path)
			fmt.Println(path, string(raw), err)
		}
	case "chatter":
		for i := 0; ; i++ {
			fmt.Println("line", i)
			time.Sleep(time.Millisecond)
		}
	case "eat":
		eat()
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println(ready)
		forever()
	case "run":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM, syscall.SIGUSR1)
		fmt.Println(ready)
		return 128 + int((<-c).(syscall.Signal))
	default:
		return 2
	}
	return 0
}

func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

func eat() {
	var held [][]byte
	for {
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = 1
		}
		held = append(held, block)
		if len(held) > 1<<12 {
			return
		}
	}
}

func number(args []string, at int) int {
	if at >= len(args) {
		return 0
	}
	n, err := strconv.Atoi(args[at])
	if err != nil {
		return 2
	}
	return n
}
