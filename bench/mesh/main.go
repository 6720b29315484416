// Command mesh compares ways from a client to a server in one run: direct, a raw
// balancer, HAProxy, the path of Docker Swarm, and Shoal, towards a virtual IP and
// a published port, with the server on the same host and on another one. It
// builds every way in network namespaces of its own, measures them in turn, in
// another order each round, and writes medians of paired ratios with their
// intervals as JSON, a table and a picture. It takes away what it made, also
// after a failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"shoal/bench/mesh/load"
)

// Roles of the program besides its own; the first argument names one.
const (
	roleServe = "serve" // the server of package load
	roleAgent = "agent" // a client that works through jobs
	roleKeep  = "keep"  // another program, for as long as its own input is open
)

// portServer is where the servers of all contenders listen.
const portServer = 7000

type options struct {
	out, bin, title string
	rounds, conns   int
	services, nice  int
	slice           time.Duration
	only            string
	hold            bool
	patience        time.Duration
	balancer        string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1][0] != '-' {
		err = role(os.Args[1], os.Args[2:])
	} else {
		err = run(ctx, flags())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mesh:", err)
		stop()
		os.Exit(1)
	}
}

func flags() options {
	var o options
	short := flag.Bool("short", false, "one short round: shows that every contender answers, not how fast")
	flag.StringVar(&o.out, "out", ".cache/bench", "the directory for the results")
	flag.StringVar(&o.bin, "bin", "bin", "where shoald and the image are (make build)")
	flag.StringVar(&o.title, "title", "mesh", "the results' file name")
	flag.IntVar(&o.rounds, "rounds", 15, "how often everything is measured")
	flag.IntVar(&o.conns, "conns", 16, "connections of a client at a time")
	flag.IntVar(&o.services, "services", 10000, "how many are loaded where many are")
	flag.IntVar(&o.nice, "nice", -10, "priority of clients, servers and proxies, as of nice(1), against what else the machine does")
	flag.DurationVar(&o.slice, "slice", 200*time.Millisecond, "how long one measurement takes")
	flag.StringVar(&o.only, "only", "", "one scenario")
	flag.BoolVar(&o.hold, "hold", false, "build everything, measure nothing, and wait for an interrupt: to look around")
	flag.DurationVar(&o.patience, "patience", time.Minute, "how long the hosts of Shoal may take to come up")
	flag.StringVar(&o.balancer, "balancer", "auto", "what Shoal balances with: auto, ipvs or nft")
	flag.Parse()
	if *short {
		o.rounds, o.slice, o.services, o.nice = 1, 80*time.Millisecond, 1000, 0
	}
	return o
}

func role(name string, args []string) error {
	switch name {
	case roleServe:
		if len(args) != 1 {
			return errors.New("serve takes a port")
		}
		port, err := strconv.Atoi(args[0])
		if err != nil {
			return fmt.Errorf("serve: port %q: %w", args[0], err)
		}
		go endWithInput()
		return load.Serve(port)
	case roleAgent:
		return load.Agent(os.Stdin, os.Stdout)
	case roleKeep:
		return keep(args)
	}
	return fmt.Errorf("unknown role %q", name)
}

func run(ctx context.Context, o options) error {
	if os.Getuid() != 0 {
		return errors.New("network namespaces are root's: run as root")
	}
	// One comparison at a time on a machine: the lock is a socket without a file,
	// which ends with the process that has it.
	lock, err := net.Listen("unix", "@shoal-bench-mesh")
	if err != nil {
		return fmt.Errorf("another comparison runs on this machine: %w", err)
	}
	defer lock.Close()
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return fmt.Errorf("find the programs: %w", err)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make the directory of the results: %w", err)
	}
	before := describe(o.balancer)
	scenarios, down, err := build(ctx, o)
	if err != nil {
		return errors.Join(err, down())
	}
	if o.hold {
		show(scenarios)
		<-ctx.Done()
		return down()
	}
	rounds, err := measureAll(ctx, o, scenarios)
	if err := errors.Join(err, down()); err != nil {
		return err
	}
	return write(o, summarize(o, before, scenarios, rounds))
}

// show prints what each contender's client connects to, and from which process.
func show(scenarios []scenario) {
	for _, s := range scenarios {
		for _, c := range s.contenders {
			fmt.Printf("%s, %s: process %d to %s\n", s.Name, c.Name, c.client.pid, c.target)
		}
	}
}
