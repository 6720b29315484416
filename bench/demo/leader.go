package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/load"
)

// ledger is the service that the writer writes to.
const ledger = "ledger"

// killLeader kills the leading daemon while a writer writes through another
// manager; tasks and tables of its host go on without it.
func (s *stage) killLeader(ctx context.Context) error {
	leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	s.front = s.client
	if s.front.Name == leader.Name {
		s.front = s.hosts[leader.Index%len(s.hosts)]
	}
	if _, err := s.netctl(ctx, s.front, "service", "create", "-d", "-q", "--no-resolve-image", "--name", ledger, "--replicas", "0", image); err != nil {
		return err
	}
	s.note("a writer adds a label to %s through %s every %s; %s leads", ledger, s.front.Name, writePause, leader.Name)
	w := &writer{host: s.front}
	stop := s.start(ctx, w.run)
	if err := wait(ctx, time.Second); err != nil {
		return err
	}
	err = s.event(ctx, "the leader's death", noLosses, func(ctx context.Context, began time.Time) (time.Time, error) {
		return s.behead(ctx, leader, w, began)
	})
	if err != nil {
		return err
	}
	err = s.event(ctx, "the old leader's return", noLosses, func(ctx context.Context, began time.Time) (time.Time, error) {
		return s.giveBack(ctx, leader, "a killed daemon comes back", began)
	})
	if err != nil {
		return err
	}
	stop()
	return s.nothingLost(ctx, w)
}

// behead kills the leader's daemon and returns when a write is acknowledged
// again.
func (s *stage) behead(ctx context.Context, leader lab.Host, w *writer, began time.Time) (time.Time, error) {
	if err := s.labctl(ctx, "kill", leader.Name); err != nil {
		return time.Time{}, err
	}
	dead := time.Now()
	var over time.Time
	_, err := await(ctx, "an acknowledged write", func() error {
		for _, a := range w.acknowledged() {
			if a.began.After(dead) {
				over = a.ended
				return nil
			}
		}
		return fmt.Errorf("no write since the leader died")
	})
	if err != nil {
		return time.Time{}, err
	}
	if _, err := s.netctl(ctx, s.front, "service", "update", "-d", "-q", "--label-add", "shown=yes", web); err != nil {
		return time.Time{}, err
	}
	if _, err := s.netctl(ctx, s.front, "node", "ls"); err != nil {
		return time.Time{}, err
	}
	s.claim("the leader dies and writes go on", true, "longest gap between two acknowledged writes: %s", load.Round(longestGap(w.acknowledged(), began)))
	return over, nil
}

// nothingLost looks on every host for every write that was acknowledged.
func (s *stage) nothingLost(ctx context.Context, w *writer) error {
	acks := w.acknowledged()
	held, figure := true, fmt.Sprintf("%d writes on each of %d hosts", len(acks), len(s.hosts))
	for _, h := range s.hosts {
		var missing int
		_, err := await(ctx, "the last writes on "+h.Name, func() error {
			var found swarm.Service
			if err := h.Call(ctx, http.MethodGet, "/services/"+ledger, nil, &found); err != nil {
				return err
			}
			missing = 0
			for _, a := range acks {
				if _, ok := found.Spec.Labels[a.label]; !ok {
					missing++
				}
			}
			if missing > 0 {
				return fmt.Errorf("%d are missing", missing)
			}
			return nil
		})
		if missing > 0 {
			held, figure = false, fmt.Sprintf("%d of %d are missing on %s", missing, len(acks), h.Name)
			break
		}
		if err != nil {
			return err
		}
	}
	if refused, first := w.refused(); refused > 0 {
		figure += fmt.Sprintf("; %d more were not acknowledged, the first: %v", refused, first)
	}
	s.claim("every acknowledged write is there", held && len(acks) > 0, "%s", figure)
	return nil
}
