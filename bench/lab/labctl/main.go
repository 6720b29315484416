// Command labctl brings up, troubles, heals and takes away a lab of hosts on
// this machine. It has no state of its own: the lab's directory says it all.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"shoal/bench/lab"
)

const usage = `usage: labctl [-dir DIR] COMMAND

  up [-hosts N] [-shoald PROGRAM] [-image FILE,...] [-daemon-flags FLAGS] [-prefix NAME] [-subnet CIDR]
                        make the lab, return when all is ready
  down                  take it away, and check that nothing is left
  heal                  start again what was killed or cut, wait until all is ready
  status                what runs
  cut HOST              power cut: cable out, daemon and tasks killed
  stop HOST, kill HOST  stop or kill the daemon, leave the tasks
  unplug HOST, plug HOST   take the cable out, put it in
  freeze HOST, thaw HOST   stop every process of the host, let them go on
  exec HOST -- COMMAND  run a command in the host's network
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	dir := flag.String("dir", lab.DefaultDir, "")
	flag.Parse()
	err := run(ctx, *dir, flag.Args())
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "labctl:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, args []string) error {
	if len(args) == 0 {
		flag.Usage()
		return errors.New("no command")
	}
	if args[0] == "up" {
		return up(ctx, dir, args[1:])
	}
	l, err := lab.Open(dir)
	if err != nil {
		return err
	}
	switch args[0] {
	case "down":
		return down(ctx, l)
	case "heal":
		return heal(ctx, l)
	case "status":
		return status(l)
	}
	return onHost(ctx, l, args)
}

func onHost(ctx context.Context, l *lab.Lab, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("%s takes a host", args[0])
	}
	h, err := l.Host(args[1])
	if err != nil {
		return err
	}
	if args[0] == "exec" {
		return execute(ctx, h, args[2:])
	}
	t, known := troubles[args[0]]
	if !known {
		return fmt.Errorf("unknown command %q", args[0])
	}
	if err := t.do(ctx, l, h); err != nil {
		return err
	}
	return say("%s: %s", h.Name, t.done)
}

// execute runs a command on a host and passes its exit status on.
func execute(ctx context.Context, h lab.Host, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("exec takes a command")
	}
	cmd := h.Command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func up(ctx context.Context, dir string, args []string) error {
	here, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	beside := func(name string) string { return filepath.Join(filepath.Dir(here), name) }
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	hosts := flags.Int("hosts", lab.DefaultHosts, "how many hosts")
	shoald := flags.String("shoald", beside("shoald"), "the daemon's program; empty for none")
	images := flags.String("image", beside("whoami.tar")+","+beside("whoami-v2.tar"), "archives to load on every host")
	more := flags.String("daemon-flags", "", "further flags of shoald, separated by blanks")
	prefix := flags.String("prefix", lab.DefaultPrefix, "how the names of the namespaces begin")
	subnet := flags.String("subnet", lab.DefaultSubnet, "a /24 for the hosts")
	six := flags.Bool("underlay6", false, "hosts speak with each other over IPv6")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg := lab.Config{Hosts: *hosts, Dir: dir, Prefix: *prefix, Subnet: *subnet, Shoald: *shoald, DaemonFlags: strings.Fields(*more), Underlay6: *six}
	cfg.Images = strings.FieldsFunc(*images, func(c rune) bool { return c == ',' })
	l, err := lab.New(cfg)
	if err != nil {
		return err
	}
	if err := l.Up(ctx); err != nil {
		return err
	}
	return status(l)
}

func down(ctx context.Context, l *lab.Lab) error {
	if err := l.Down(ctx); err != nil {
		return err
	}
	left, err := l.Leftovers()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind:\n\t%s", strings.Join(left, "\n\t"))
	}
	return say("%d hosts are taken away, nothing is left of them", len(l.Hosts()))
}

func status(l *lab.Lab) error {
	for _, h := range l.Hosts() {
		state := "shoald does not run"
		if pid, runs := l.DaemonPid(h); runs {
			state = fmt.Sprintf("shoald is process %d", pid)
		}
		role := "worker"
		if h.Manager() {
			role = "manager"
		}
		if err := say("%-4s %-12s %-8s DOCKER_HOST=unix://%s  %s", h.Name, h.Address, role, h.Socket, state); err != nil {
			return err
		}
	}
	return nil
}
