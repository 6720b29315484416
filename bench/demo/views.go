package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"shoal/bench/lab"
	"shoal/node/netview"
	"shoal/overlay/gossip"
)

// showNetwork is step 6: what netctl says of the network, and whether it is true.
func (s *stage) showNetwork(ctx context.Context) error {
	h := s.front
	for _, view := range []struct{ name, excerpt string }{
		{"endpoints", "grep -E 'NETWORK|web'"},
		{"lb", "grep -E 'balancer|BACKEND|the .* " + web + " '"},
		{"dns", "grep -E 'NAME| (tasks\\.)?" + web + " | " + roundRob + " '"},
		{"gossip", "cat"},
		{"drift", "cat"},
	} {
		if _, err := s.piped(ctx, s.at(h, view.name), view.excerpt); err != nil {
			return err
		}
	}
	if err := s.compareTables(ctx); err != nil {
		return err
	}
	return s.trace(ctx, s.client)
}

// compareTables waits until every host has the same endpoints, balances over
// just the tasks that run, and finds its kernel as it should be.
func (s *stage) compareTables(ctx context.Context) error {
	tasks, err := s.tasks(ctx, web)
	if err != nil {
		return err
	}
	var want []string
	for _, t := range tasks {
		want = append(want, name(t, web))
	}
	at, err := await(ctx, "tables that agree", func() error {
		sums := map[uint64]bool{}
		for _, h := range s.hosts {
			sum, err := s.tablesOf(ctx, h, want)
			if err != nil {
				return fmt.Errorf("%s: %w", h.Name, err)
			}
			sums[sum] = true
		}
		if len(sums) != 1 {
			return fmt.Errorf("the hosts have %d different endpoint tables", len(sums))
		}
		return nil
	})
	figure := fmt.Sprintf("same digest, %s behind each front, no drift, on all %d hosts", strings.Join(want, " "), len(s.hosts))
	if err != nil {
		figure = err.Error()
	}
	s.claim("endpoint tables agree, kernels have just the running tasks", !at.IsZero(), "%s", figure)
	return nil
}

// tablesOf returns the digest of a host's endpoint table, and complains when
// its kernel balances the service over other tasks than wanted, or differs from
// what should be there.
func (s *stage) tablesOf(ctx context.Context, h lab.Host, want []string) (uint64, error) {
	var stats gossip.Stats
	if err := view(ctx, h, "gossip", &stats); err != nil {
		return 0, err
	}
	if len(stats.Behind) > 0 {
		return 0, fmt.Errorf("behind on %d owners", len(stats.Behind))
	}
	var drift netview.Drift
	if err := view(ctx, h, "drift", &drift); err != nil {
		return 0, err
	}
	if len(drift.Differences) > 0 {
		return 0, fmt.Errorf("drift: %s", strings.Join(drift.Differences, "; "))
	}
	var balancer netview.Balancer
	if err := view(ctx, h, "lb", &balancer); err != nil {
		return 0, err
	}
	fronts := 0
	for _, n := range balancer.Namespaces {
		for _, service := range n.Services {
			if service.Name != web {
				continue
			}
			var have []string
			for _, b := range service.Backends {
				have = append(have, b.Task)
			}
			slices.Sort(have)
			if !slices.Equal(have, want) {
				return 0, fmt.Errorf("%s balances %s over %v", n.Of, web, have)
			}
			fronts++
		}
	}
	if fronts == 0 {
		return 0, fmt.Errorf("nothing balances %s", web)
	}
	return stats.DigestSum, nil
}

// view reads one of the network views of a host.
func view(ctx context.Context, h lab.Host, name string, out any) error {
	var raw json.RawMessage
	if err := h.Call(ctx, http.MethodGet, "/shoal/"+name, nil, &raw); err != nil {
		return err
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("decode the view %s of %s: %w", name, h.Name, err)
	}
	return nil
}

// trace follows a packet from a task to the virtual address, and one from
// outside to the published port, and shows the first two ways each may take.
func (s *stage) trace(ctx context.Context, h lab.Host) error {
	published := net.JoinHostPort(h.Address.String(), webPort)
	for _, way := range [][]string{{client + ".1", web + ":80"}, {s.lab.Outside().String(), published}} {
		command := s.at(h, append([]string{"trace"}, way...)...)
		if _, err := s.piped(ctx, command, "sed '/^way 3/,$d'"); err != nil {
			return err
		}
		whole, err := execute(ctx, command)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ways, delivered := strings.Count(whole, "\nway "), strings.Count(whole, "\n  delivered at ")
		figure := fmt.Sprintf("%d ways, %d of them delivered", ways, delivered)
		if err != nil {
			figure = fmt.Sprintf("%v: %s", err, strings.TrimSpace(whole))
		}
		s.claim("trace leads from "+way[0]+" to every task of "+web, err == nil && ways == replicas && delivered == replicas, "%s", figure)
	}
	return nil
}
