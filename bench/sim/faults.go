package sim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"shoal/node/agent"
)

// Fault is something bad that happens to a cluster.
type Fault struct {
	Name string
	// Do makes it happen, and returns what ends it, nil for nothing.
	Do func(ctx context.Context, s *Script) (undo func(context.Context) error, err error)
}

// Faults are all that can be drawn.
var Faults = []Fault{
	{"nothing", func(context.Context, *Script) (func(context.Context) error, error) { return nil, nil }},
	{"services come and go", comeAndGo},
	{"kill -9 of a worker's daemon", killWorker},
	{"a daemon is restarted", restartOne},
	{"a worker loses power for long", powerCut},
	{"kill -9 of the leader", killLeader},
	{"programs exit", exits},
	{"someone else empties tables", trample},
	{"the underlay splits", split},
	{"the leader's host loses power", powerCutLeader},
	{"packets are lost", loss},
	{"every manager restarts at once", restartManagers},
	{"a worker is removed and joins again", removeWorker},
}

func start(hosts ...*Host) func(context.Context) error {
	return func(context.Context) error {
		var errs []error
		for _, h := range hosts {
			errs = append(errs, h.Start())
		}
		return errors.Join(errs...)
	}
}

// comeAndGo removes services while their first tasks are on the way.
func comeAndGo(ctx context.Context, s *Script) (func(context.Context) error, error) {
	for range 4 {
		name, err := s.create(ctx)
		if err != nil {
			return nil, err
		}
		select { // anything between at once and about when the tasks run
		case <-time.After(time.Duration(s.rng.IntN(150)) * time.Millisecond):
		case <-ctx.Done():
		}
		if err := s.op.RemoveService(ctx, name); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// killWorker lets the worker come back before the managers give it up, or after.
func killWorker(ctx context.Context, s *Script) (func(context.Context) error, error) {
	h := s.some(s.workers())
	s.Log("kill -9 of %s", h.name)
	h.Kill()
	if s.rng.IntN(2) == 0 {
		return start(h), s.knownDown(ctx, h)
	}
	return start(h), nil
}

func restartOne(_ context.Context, s *Script) (func(context.Context) error, error) {
	h := s.some(s.c.hosts)
	s.Log("restart %s", h.name)
	return start(h), h.Stop()
}

func powerCut(ctx context.Context, s *Script) (func(context.Context) error, error) {
	h := s.some(s.workers())
	s.Log("power cut of %s", h.name)
	h.PowerCut()
	if err := s.knownDown(ctx, h); err != nil {
		return start(h), err
	}
	if err := s.restWithout(ctx); err != nil {
		return start(h), err
	}
	return start(h), nil
}

// restWithout waits until what the dead hosts ran runs elsewhere, and nobody
// sends anything to them. The steady writer goes on meanwhile.
func (s *Script) restWithout(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.Rest, fmt.Errorf("%s are over", s.Rest))
	defer cancel()
	return Await(ctx, s.op.Converged, s.c.Tables, s.op.Reach)
}

func killLeader(ctx context.Context, s *Script) (func(context.Context) error, error) {
	if err := s.led(ctx); err != nil {
		return nil, err
	}
	h := s.c.Leader()
	s.Log("kill -9 of the leader %s", h.name)
	h.Kill()
	return start(h), s.led(ctx)
}

func powerCutLeader(ctx context.Context, s *Script) (func(context.Context) error, error) {
	if err := s.led(ctx); err != nil {
		return nil, err
	}
	h := s.c.Leader()
	s.Log("power cut of the leader %s", h.name)
	h.PowerCut()
	return start(h), s.knownDown(ctx, h)
}

func exits(_ context.Context, s *Script) (func(context.Context) error, error) {
	for range 3 {
		h := s.some(s.c.hosts)
		tasks := wantedOn(s.c, h)
		if len(tasks) == 0 {
			continue
		}
		t := tasks[s.rng.IntN(len(tasks))]
		s.Log("task %s of %s on %s exits", t.ID, t.ServiceName, h.name)
		// It may have ended by itself between the look and here.
		_ = h.machine.runtime.Exit(agent.ContainerID(t.ID), s.rng.IntN(2))
	}
	return nil, nil
}

// trample does what a person at a shell can do to a kernel.
func trample(_ context.Context, s *Script) (func(context.Context) error, error) {
	for range 4 {
		h := s.some(s.c.hosts)
		d := h.Daemon()
		n, _ := d.rooms()
		tables := n.compile().Balancers
		if len(tables) == 0 {
			continue
		}
		namespace := tables[s.rng.IntN(len(tables))].Namespace
		s.Log("flush the balancer of %s in %s", h.name, namespace)
		h.machine.flush(namespace)
	}
	h := s.some(s.c.hosts)
	for _, l := range h.machine.links() {
		if s.rng.IntN(4) == 0 {
			s.Log("delete link %q of %s", l.name, h.name)
			if err := h.machine.deleteLink(l); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// split cuts one manager, sometimes the leader, and some workers from the rest.
func split(ctx context.Context, s *Script) (func(context.Context) error, error) {
	cut := []*Host{s.c.hosts[s.rng.IntN(s.c.cfg.Managers)]}
	for _, h := range s.workers() {
		if s.rng.IntN(3) == 0 {
			cut = append(cut, h)
		}
	}
	var addrs []netip.Addr
	for _, h := range cut {
		s.Log("cut off %s", h.name)
		addrs = append(addrs, h.addr)
	}
	s.c.watch.disturbed(s.c.hosts...)
	s.c.underlay.Split(1, addrs...)
	heal := func(context.Context) error {
		s.c.watch.disturbed(s.c.hosts...)
		s.c.underlay.Heal()
		return nil
	}
	return heal, s.knownDown(ctx, cut...)
}

func loss(_ context.Context, s *Script) (func(context.Context) error, error) {
	share := 0.05 + 0.25*s.rng.Float64()
	s.Log("%.0f%% of all packets are lost", 100*share)
	s.c.underlay.SetLoss(share)
	return func(context.Context) error {
		s.c.watch.disturbed(s.c.hosts...)
		s.c.underlay.SetLoss(0)
		return nil
	}, nil
}

func restartManagers(ctx context.Context, s *Script) (func(context.Context) error, error) {
	managers := s.c.hosts[:s.c.cfg.Managers]
	var wg sync.WaitGroup
	for _, h := range managers {
		wg.Go(h.Kill)
	}
	wg.Wait()
	if err := start(managers...)(ctx); err != nil {
		return nil, err
	}
	return nil, s.led(ctx)
}
