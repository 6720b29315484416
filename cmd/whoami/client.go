package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"time"
)

// askPatience bounds one question of a client.
const askPatience = 5 * time.Second

// repeated reads [-n N] ARG and asks N times. Every failure is told; the last
// one is returned.
func repeated(command string, args []string, ask func(target string) error) error {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	times := flags.Int("n", 1, "")
	if err := flags.Parse(args); err != nil {
		return usageError(err.Error())
	}
	if flags.NArg() != 1 || *times < 1 {
		return usageError(command + " takes one target, and -n at least 1")
	}
	failures := 0
	var last error
	for range *times {
		if err := ask(flags.Arg(0)); err != nil {
			failures, last = failures+1, err
			if *times > 1 {
				fmt.Fprintln(os.Stderr, "whoami:", err)
			}
		}
	}
	if failures > 0 && *times > 1 {
		return fmt.Errorf("%d of %d failed", failures, *times)
	}
	return last
}

// get fetches a URL, a new connection each time. A status of 400 or more fails.
func get(args []string) error {
	client := &http.Client{Timeout: askPatience, Transport: &http.Transport{DisableKeepAlives: true}}
	return repeated("get", args, func(url string) error {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if _, err := io.Copy(os.Stdout, response.Body); err != nil {
			return err
		}
		if response.StatusCode >= http.StatusBadRequest {
			return fmt.Errorf("get %s: %s", url, response.Status)
		}
		return nil
	})
}

// udp sends one packet from a new port and prints the answer.
func udp(args []string) error {
	return repeated("udp", args, func(address string) error {
		conn, err := net.DialTimeout("udp", address, askPatience)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(askPatience)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("who are you?\n")); err != nil {
			return err
		}
		buffer := make([]byte, 2048)
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(buffer[:n])
		return err
	})
}

// lookup prints the addresses of a name, or the names of an address, sorted.
func lookup(args []string) error {
	if len(args) != 1 {
		return usageError("lookup takes one name")
	}
	ctx, cancel := context.WithTimeout(context.Background(), askPatience)
	defer cancel()
	find := net.DefaultResolver.LookupHost
	if net.ParseIP(args[0]) != nil {
		find = net.DefaultResolver.LookupAddr
	}
	found, err := find(ctx, args[0])
	if err != nil {
		return err
	}
	slices.Sort(found)
	for _, one := range found {
		fmt.Println(one)
	}
	return nil
}
