// Command demo shows the main job on three hosts of this machine with the
// operator's own commands: a cluster, a service, names and virtual addresses,
// and what happens when tasks, hosts and leaders die. It prints every command
// before it runs it, judges what it sees by claims that hold or do not, and
// takes everything away again, whatever happened. It never looks inside the
// daemons.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"shoal/bench/lab"
	"shoal/bench/load"
)

// takeDownPatience bounds taking the lab away.
const takeDownPatience = time.Minute

func main() {
	// A closed terminal or pipe ends the show, not the cleaning up after it.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	opts, err := options()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	}
	if err := perform(ctx, opts); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// settings are the command line.
type settings struct {
	lab    lab.Config
	bin    string
	images []string
}

func options() (settings, error) {
	here, err := os.Executable()
	if err != nil {
		return settings{}, fmt.Errorf("find this program: %w", err)
	}
	bin := filepath.Dir(here)
	if cwd, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(cwd, bin); err == nil && !strings.HasPrefix(short, "..") {
			bin = short
		}
	}
	s := settings{lab: lab.Config{Loose: true}}
	flag.StringVar(&s.lab.Dir, "dir", lab.DefaultDir, "directory of the lab, which must not exist")
	flag.StringVar(&s.lab.Prefix, "prefix", lab.DefaultPrefix, "how names of the lab's network namespaces begin")
	flag.StringVar(&s.lab.Subnet, "subnet", lab.DefaultSubnet, "the hosts' /24")
	flag.StringVar(&s.bin, "bin", bin, "directory of shoald, netctl, whoami, whoami.tar and whoami-v2.tar")
	flag.Parse()
	if flag.NArg() > 0 {
		return settings{}, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	for _, name := range []string{"shoald", "netctl", "labctl", "whoami", "whoami.tar", "whoami-v2.tar"} {
		if _, err := os.Stat(filepath.Join(s.bin, name)); err != nil {
			return settings{}, fmt.Errorf("%w; make build makes it", err)
		}
	}
	if s.lab.Shoald, err = filepath.Abs(filepath.Join(s.bin, "shoald")); err != nil {
		return settings{}, fmt.Errorf("find shoald: %w", err)
	}
	s.images = []string{filepath.Join(s.bin, "whoami.tar"), filepath.Join(s.bin, "whoami-v2.tar")}
	return s, nil
}

// errClaims ends a show of which something did not hold.
var errClaims = errors.New("not everything held")

// perform brings the hosts up, plays the show, takes the hosts away and prints
// the summary.
func perform(ctx context.Context, opts settings) error {
	began := time.Now()
	if up, err := lab.Open(opts.lab.Dir); err == nil {
		return fmt.Errorf("a lab of %d hosts is up in %s; take it down with: %s -dir %s down",
			len(up.Hosts()), opts.lab.Dir, filepath.Join(opts.bin, "labctl"), opts.lab.Dir)
	}
	l, err := lab.New(opts.lab)
	if err != nil {
		return err
	}
	s := newStage(l, opts, os.Stdout)
	s.heading("Three hosts on this machine, each with a shoald of its own")
	if err := l.Up(ctx); err != nil {
		return err
	}
	s.note("%s, %s and %s are up after %s", s.hosts[0].Name, s.hosts[1].Name, s.hosts[2].Name, load.Round(time.Since(began)))
	s.playSafely(ctx)
	s.takeDown(context.WithoutCancel(ctx))
	s.heading("Summary")
	s.print(s.claims.table())
	s.note("the whole show took %s", load.Round(time.Since(began)))
	if !s.claims.allHeld() {
		return errClaims
	}
	return nil
}

// playSafely plays the show; an error or a panic of it becomes a claim that did
// not hold.
func (s *stage) playSafely(ctx context.Context) {
	defer s.stopBackground()
	defer func() {
		if p := recover(); p != nil {
			s.claim("the show ran to its end", false, "panic: %v\n%s", p, debug.Stack())
		}
	}()
	if err := s.play(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w (%w)", cause, err)
		}
		s.claim("the show ran to its end", false, "%v", err)
		s.logTails()
	}
}

// play is the show, step by step.
func (s *stage) play(ctx context.Context) error {
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"1. A cluster: init, two joins by token over mutual TLS", s.formCluster},
		{"2. An overlay network, and a service of 6 replicas with a published port", s.createService},
		{"3. Every host answers on the port", s.askEveryHost},
		{"4. Inside a task: names and virtual addresses", s.lookAround},
		{"5. Bad days, under load", s.badDays},
		{"6. The network as it is", s.showNetwork},
	} {
		s.heading(step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("step %q: %w", step.title, err)
		}
	}
	return nil
}

// takeDown takes the lab away and claims that nothing is left.
func (s *stage) takeDown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, takeDownPatience)
	defer cancel()
	s.heading("Taking everything away")
	began := time.Now()
	err := s.lab.Down(ctx)
	left, listErr := s.lab.Leftovers()
	if err := errors.Join(err, listErr); err != nil {
		s.claim("nothing is left behind", false, "%v", err)
		return
	}
	if len(left) > 0 {
		s.claim("nothing is left behind", false, "%s", strings.Join(left, "\n"))
		return
	}
	s.claim("nothing is left behind", true, "no namespace, link, mount, process, cgroup, file; took %s", load.Round(time.Since(began)))
}
