package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/load"
	"shoal/overlay/netns"
)

// probePause is the time between two requests of the prober.
const probePause = 10 * time.Millisecond

// watchAfter is how long requests are watched after an event is over.
const watchAfter = 1500 * time.Millisecond

// badDays is step 5: everything in it happens while the prober asks.
func (s *stage) badDays(ctx context.Context) error {
	if err := s.startProber(ctx); err != nil {
		return err
	}
	for _, day := range []func(context.Context) error{
		func(ctx context.Context) error { return s.scale(ctx, 12) },
		func(ctx context.Context) error { return s.scale(ctx, 2) },
		func(ctx context.Context) error { return s.scale(ctx, replicas) },
		s.killTask, s.cutPower, s.killLeader,
	} {
		if err := day(ctx); err != nil {
			return err
		}
	}
	s.note("the prober made %d requests; %d turns were left out because too many were in flight", len(s.prober.Taken()), s.prober.HeldBack())
	return nil
}

// through names the prober's way over a host.
func through(h lab.Host) string { return "through " + h.Name }

// startProber asks through every host, and from a task at the virtual address.
func (s *stage) startProber(ctx context.Context) error {
	var routes []*load.Route
	for _, h := range s.hosts {
		routes = append(routes, &load.Route{Name: through(h), Ask: load.Asker(net.JoinHostPort(h.Address.String(), webPort), nil)})
	}
	pid, err := s.clientPid(ctx)
	if err != nil {
		return err
	}
	vip, err := s.virtualAddress(ctx, web)
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	routes = append(routes, &load.Route{Name: "from " + client + ".1 through the virtual address",
		Ask: load.Asker(net.JoinHostPort(vip, "80"), func(ctx context.Context, network, address string) (net.Conn, error) {
			return netns.Dial(ctx, path, network, address)
		})})
	s.prober = load.New(probePause, routes...)
	s.start(ctx, s.prober.Run)
	s.note("a prober asks %s every %s, by turns through each host and from %s.1 at %s: a new connection each, lost after %s",
		web, probePause, client, vip, load.Timeout)
	s.note("an event is over when the cluster reports it healed and every host answers accordingly; a request belongs to the time it began, and the claims are about those after it")
	return nil
}

// losses says why requests may fail while an event goes on, "" where none should.
type losses string

const (
	noLosses losses = ""
	// Who is dead is asked until somebody notices.
	toDeadTask losses = "a killed task is asked until its node knows of its death"
	toDeadHost losses = "a dead host's tasks are asked until the other hosts miss it"
)

// of is the bill with what to think of it.
func (l losses) of(b load.Bill) string {
	switch {
	case len(b.During.Failures) == 0:
		return b.String()
	case l == noLosses:
		return b.String() + ", though none should"
	}
	return b.String() + ", as expected: " + string(l)
}

// event plays one event under load and claims that no request that began after
// it was over failed.
func (s *stage) event(ctx context.Context, after string, expected losses, play func(ctx context.Context, began time.Time) (over time.Time, err error)) error {
	began := time.Now()
	over, err := play(ctx, began)
	if err != nil {
		return err
	}
	if err := wait(ctx, time.Until(over.Add(watchAfter))); err != nil {
		return err
	}
	until := time.Now()
	if err := s.prober.Landed(ctx, until); err != nil {
		return err
	}
	b := load.Account(s.prober.Taken(), began, over, until)
	s.print(indented(load.Details(b.During.Failures, began)))
	s.print(indented(load.Details(b.After.Failures, began)))
	s.claim("after "+after+" no request met a dead backend", b.Clean(), "%s", expected.of(b))
	return nil
}

// wait lets time pass.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// moment is when something was seen to happen.
type moment struct {
	at  time.Time
	err error
}

// seenBeside looks out for something while the show goes on.
func (s *stage) seenBeside(ctx context.Context, look func(ctx context.Context) (time.Time, error)) <-chan moment {
	found := make(chan moment, 1)
	s.start(ctx, func(ctx context.Context) {
		m := moment{err: errors.New("the look-out broke off")}
		defer func() { found <- m }()
		m.at, m.err = look(ctx)
	})
	return found
}

// scale changes how many replicas run.
func (s *stage) scale(ctx context.Context, n int) error {
	return s.event(ctx, fmt.Sprintf("scaling to %d", n), noLosses, func(ctx context.Context, began time.Time) (time.Time, error) {
		done := s.seenBeside(ctx, func(ctx context.Context) (time.Time, error) {
			return await(ctx, fmt.Sprintf("%d replicas", n), func() error {
				if err := s.onlyRunning(ctx, web, n); err != nil {
					return err
				}
				return s.answersEverywhere(ctx, n)
			})
		})
		if err := s.progress(ctx, s.front, "service", "scale", fmt.Sprintf("%s=%d", web, n)); err != nil {
			return time.Time{}, err
		}
		m := <-done
		if m.err != nil {
			return time.Time{}, m.err
		}
		s.claim(fmt.Sprintf("scaled to %d", n), true, "exactly %d tasks run and answer through every host after %s", n, load.Round(m.at.Sub(began)))
		return m.at, nil
	})
}

// onlyRunning complains unless n tasks of a service run, counting those that
// should not.
func (s *stage) onlyRunning(ctx context.Context, service string, n int) error {
	if _, err := s.running(ctx, service, n, nil); err != nil {
		return err
	}
	var all []swarm.Task
	filter := url.QueryEscape(`{"service":["` + service + `"]}`)
	if err := s.front.Call(ctx, http.MethodGet, "/tasks?filters="+filter, nil, &all); err != nil {
		return err
	}
	up := 0
	for _, t := range all {
		if t.Status.State == swarm.TaskStateRunning {
			up++
		}
	}
	if up != n {
		return fmt.Errorf("%d tasks of %s still run, %d should", up, service, n)
	}
	return nil
}

// killTask kills one task's process: the cluster replaces the task.
func (s *stage) killTask(ctx context.Context) error {
	tasks, err := s.tasks(ctx, web)
	if err != nil {
		return err
	}
	if len(tasks) != replicas || tasks[1].Status.ContainerStatus == nil {
		return fmt.Errorf("%s has no second task to kill", web)
	}
	victim := tasks[1]
	h, err := s.hostOf(ctx, victim)
	if err != nil {
		return err
	}
	return s.event(ctx, "replacing a killed task", toDeadTask, func(ctx context.Context, began time.Time) (time.Time, error) {
		if _, err := s.command(ctx, "kill", "-9", fmt.Sprint(victim.Status.ContainerStatus.PID)); err != nil {
			return time.Time{}, err
		}
		s.note("that was %s on %s", name(victim, web), h.Name)
		noticed, err := await(ctx, "the death of "+name(victim, web), func() error {
			var now swarm.Task
			if err := s.front.Call(ctx, http.MethodGet, "/tasks/"+victim.ID, nil, &now); err != nil {
				return err
			}
			if now.Status.State == swarm.TaskStateRunning {
				return fmt.Errorf("%s is said to run", name(victim, web))
			}
			return nil
		})
		if err != nil {
			return time.Time{}, err
		}
		replaced, err := s.healed(ctx, func(t swarm.Task) error {
			if t.ID == victim.ID {
				return fmt.Errorf("%s is said to run", name(victim, web))
			}
			return nil
		})
		if err != nil {
			return time.Time{}, err
		}
		if _, err := s.netctl(ctx, s.front, "service", "ps", web); err != nil {
			return time.Time{}, err
		}
		s.claim("a killed task is replaced", true, "death reported after %s, all %d answer through every host after %s (a service's restart delay is 5s)",
			load.Round(noticed.Sub(began)), replicas, load.Round(replaced.Sub(began)))
		return replaced, nil
	})
}

// healed waits until all replicas run, accept has nothing against any, and all
// of them answer through every host that is up.
func (s *stage) healed(ctx context.Context, accept func(swarm.Task) error) (time.Time, error) {
	return await(ctx, "all replicas", func() error {
		if _, err := s.running(ctx, web, replicas, accept); err != nil {
			return err
		}
		return s.answersEverywhere(ctx, replicas)
	})
}
