package runtimetest

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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
//	cat              write to standard output what standard input gives, until it ends
//	terminal         print the size of the terminal whenever a signal tells that it is new
//	env              print the environment, user and directory, then end
//	touch PATH       write a file that says here
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
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			return 1
		}
	case "terminal":
		terminal()
	case "env":
		directory, err := os.Getwd()
		fmt.Printf("uid=%d gid=%d wd=%s %v\n", os.Getuid(), os.Getgid(), directory, err)
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "touch":
		if err := os.WriteFile(args[1], []byte("here"), 0o644); err != nil {
			return 1
		}
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

func terminal() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	for fmt.Println(ready); ; <-c {
		if size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
			fmt.Printf("%dx%d\n", size.Col, size.Row)
		}
	}
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
