package main

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/load"
)

const (
	stoppedReplicas = 6
	stoppedRate     = 400
	// settled is how long a host is watched before its daemon goes, and after it
	// is back.
	settled = 5 * time.Second
)

// stopped takes the daemon of one host away for a while, once asked to stop and
// once killed, while the service is asked from outside and from a task on every
// host, and names are looked up in these tasks. With alone, all tasks of the
// service are on that host, which must be back before it is given up.
func stopped(ctx context.Context, l *lab.Lab, victim lab.Host, away time.Duration, alone bool) error {
	s, err := open(ctx, l, stoppedReplicas, func(spec *swarm.ServiceSpec) {
		if alone {
			spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname==" + victim.Name}}
		}
	})
	if s != nil {
		defer s.close(ctx)
	}
	if err != nil {
		return err
	}
	routes := s.routes(", requests", load.Asker)
	for _, h := range l.Hosts() {
		for _, name := range []string{sceneWeb, "tasks." + sceneWeb} {
			routes = append(routes, &load.Route{Name: inside(h.Name) + ", lookups of " + name, Ask: load.Lookup(name, s.dialer(h.Name))})
		}
	}
	for _, r := range routes {
		if err := await(ctx, "an answer "+r.Name, func() error { _, err := r.Ask(ctx); return err }); err != nil {
			return err
		}
	}
	end := s.ask(ctx, stoppedRate, routes)
	defer end()
	sleep(ctx, settled)
	for _, way := range []struct {
		name string
		end  func(context.Context, lab.Host) error
	}{{"stopped", l.StopDaemon}, {"killed", l.KillDaemon}} {
		began := time.Now()
		if err := way.end(ctx, victim); err != nil {
			return err
		}
		sleep(ctx, away)
		back := time.Now()
		if err := l.Heal(ctx); err != nil {
			return err
		}
		ready := time.Now()
		if _, err := s.running(ctx, sceneWeb, stoppedReplicas); err != nil {
			return err
		}
		sleep(ctx, settled)
		if err := s.prober.Landed(ctx, time.Now()); err != nil {
			return err
		}
		bill := load.Account(s.prober.Taken(), began, back, time.Now())
		fmt.Printf("shoald on %s %s for %s, back %s after its start: away %d of %d lost; from its start on %d of %d\n", victim.Name, way.name, load.Round(back.Sub(began)),
			load.Round(ready.Sub(back)), len(bill.During.Failures), bill.During.Requests, len(bill.After.Failures), bill.After.Requests)
		fmt.Print(load.Details(bill.During.Failures, began), load.Details(bill.After.Failures, back))
	}
	end()
	return account(s.prober)
}
