package main

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/load"
)

// labctl shows a command that troubles or heals the lab.
func (s *stage) labctl(ctx context.Context, args ...string) error {
	_, err := s.command(ctx, append([]string{s.program("labctl"), "-dir", s.dir}, args...)...)
	return err
}

// cutPower takes a host that neither leads nor asks from the net, kills all of
// it, and later gives it back.
func (s *stage) cutPower(ctx context.Context) error {
	leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	var victim lab.Host
	for _, h := range s.hosts {
		if h.Name != leader.Name && h.Name != s.client.Name {
			victim = h
		}
	}
	s.front = leader
	s.note("the prober stops asking through %s, which nobody could answer", victim.Name)
	if err := s.prober.Use(ctx, through(victim), false); err != nil {
		return err
	}
	s.dark = victim.Name
	err = s.event(ctx, "replacing a dead host's tasks", toDeadHost, func(ctx context.Context, began time.Time) (time.Time, error) {
		return s.cut(ctx, victim, began)
	})
	if err != nil {
		return err
	}
	return s.event(ctx, "the dead host's return", noLosses, func(ctx context.Context, began time.Time) (time.Time, error) {
		return s.giveBack(ctx, victim, "a dead host comes back", began)
	})
}

// cut cuts a host off and returns when its tasks run elsewhere.
func (s *stage) cut(ctx context.Context, victim lab.Host, began time.Time) (time.Time, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if err := s.labctl(ctx, "cut", victim.Name); err != nil {
		return time.Time{}, err
	}
	noticed, err := await(ctx, victim.Name+" to be down", func() error {
		now, err := s.nodes(ctx)
		if err != nil {
			return err
		}
		if state := now[victim.Name].Status.State; state != swarm.NodeStateDown {
			return fmt.Errorf("%s is %s", victim.Name, state)
		}
		return nil
	})
	if err != nil {
		return time.Time{}, err
	}
	replaced, err := s.healed(ctx, func(t swarm.Task) error {
		if t.NodeID == nodes[victim.Name].ID {
			return fmt.Errorf("%s is on the dead host", name(t, web))
		}
		return nil
	})
	if err != nil {
		return time.Time{}, err
	}
	if _, err := s.netctl(ctx, s.front, "node", "ls"); err != nil {
		return time.Time{}, err
	}
	if _, err := s.netctl(ctx, s.front, "service", "ps", "-f", "desired-state=running", web); err != nil {
		return time.Time{}, err
	}
	s.claim("a dead host's tasks run elsewhere", true, "host reported down after %s, all %d answer through the other hosts after %s",
		load.Round(noticed.Sub(began)), replicas, load.Round(replaced.Sub(began)))
	return replaced, nil
}

// giveBack heals the lab and returns when the host answers like every other.
func (s *stage) giveBack(ctx context.Context, h lab.Host, what string, began time.Time) (time.Time, error) {
	if err := s.labctl(ctx, "heal"); err != nil {
		return time.Time{}, err
	}
	s.dark = ""
	back, err := s.healed(ctx, nil)
	if err != nil {
		return time.Time{}, err
	}
	s.claim(what, true, "%s is ready and answers for all %d tasks after %s", h.Name, replicas, load.Round(back.Sub(began)))
	return back, s.prober.Use(ctx, through(h), true)
}
