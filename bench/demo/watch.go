package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
)

// patience bounds every wait of the show; pollPause is how exact its times are.
const (
	patience  = 45 * time.Second
	pollPause = 10 * time.Millisecond
)

// await asks check until it is content, and returns when it was.
func await(ctx context.Context, what string, check func() error) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pause := time.NewTicker(pollPause)
	defer pause.Stop()
	for {
		err := check()
		if err == nil {
			return time.Now(), nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("wait for %s: %w", what, errors.Join(ctx.Err(), err))
		case <-pause.C:
		}
	}
}

// tasks are the tasks of a service that should run.
func (s *stage) tasks(ctx context.Context, service string) ([]swarm.Task, error) {
	filter, err := json.Marshal(map[string][]string{"service": {service}, "desired-state": {"running"}})
	if err != nil {
		return nil, fmt.Errorf("encode a filter: %w", err)
	}
	var list []swarm.Task
	if err := s.front.Call(ctx, http.MethodGet, "/tasks?filters="+url.QueryEscape(string(filter)), nil, &list); err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b swarm.Task) int { return a.Slot - b.Slot })
	return list, nil
}

// running reads the tasks of a service and complains unless exactly n should
// run, all of them do, and accept has nothing against any.
func (s *stage) running(ctx context.Context, service string, n int, accept func(swarm.Task) error) ([]swarm.Task, error) {
	list, err := s.tasks(ctx, service)
	if err != nil {
		return nil, err
	}
	up := 0
	for _, t := range list {
		if t.Status.State != swarm.TaskStateRunning {
			continue
		}
		if accept != nil {
			if err := accept(t); err != nil {
				return nil, err
			}
		}
		up++
	}
	if up != n || len(list) != n {
		return nil, fmt.Errorf("%d of %d tasks of %s run, %d should", up, len(list), service, n)
	}
	return list, nil
}

// settled waits until exactly n tasks of a service run.
func (s *stage) settled(ctx context.Context, service string, n int, accept func(swarm.Task) error) (tasks []swarm.Task, at time.Time, err error) {
	at, err = await(ctx, fmt.Sprintf("%d running tasks of %s", n, service), func() error {
		tasks, err = s.running(ctx, service, n, accept)
		return err
	})
	return tasks, at, err
}

// nodes are the cluster's nodes by hostname.
func (s *stage) nodes(ctx context.Context) (map[string]swarm.Node, error) {
	var list []swarm.Node
	if err := s.front.Call(ctx, http.MethodGet, "/nodes", nil, &list); err != nil {
		return nil, err
	}
	byName := make(map[string]swarm.Node, len(list))
	for _, n := range list {
		byName[n.Description.Hostname] = n
	}
	return byName, nil
}

// leader is the host whose manager leads.
func (s *stage) leader(ctx context.Context) (lab.Host, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return lab.Host{}, err
	}
	for name, n := range nodes {
		if n.ManagerStatus != nil && n.ManagerStatus.Leader {
			return s.host(name)
		}
	}
	return lab.Host{}, errors.New("no manager leads")
}

// hostOf is the host on which a task runs.
func (s *stage) hostOf(ctx context.Context, t swarm.Task) (lab.Host, error) {
	nodes, err := s.nodes(ctx)
	if err != nil {
		return lab.Host{}, err
	}
	for name, n := range nodes {
		if n.ID == t.NodeID {
			return s.host(name)
		}
	}
	return lab.Host{}, fmt.Errorf("task %s is on the unknown node %q", name(t, "task"), t.NodeID)
}

// name is what people call a task.
func name(t swarm.Task, service string) string { return fmt.Sprintf("%s.%d", service, t.Slot) }

// addresses are the tasks' addresses on a network, sorted as text.
func addresses(tasks []swarm.Task, network string) []string {
	var list []string
	for _, t := range tasks {
		for _, a := range t.NetworksAttachments {
			if a.Network.Spec.Name != network {
				continue
			}
			for _, prefix := range a.Addresses {
				list = append(list, prefix.Addr().String())
			}
		}
	}
	slices.Sort(list)
	return list
}

// counts reads what "uniq -c" printed about lines task=NAME.
func counts(output string) (map[string]int, error) {
	found := map[string]int{}
	for line := range strings.Lines(output) {
		var n int
		var word string
		if _, err := fmt.Sscan(line, &n, &word); err != nil {
			return nil, fmt.Errorf("count of answers %q: %w", strings.TrimSpace(line), err)
		}
		key, value, ok := strings.Cut(word, "=")
		if !ok || (key != "task" && key != "node") {
			return nil, fmt.Errorf("unexpected answer %q", strings.TrimSpace(line))
		}
		found[value] += n
	}
	return found, nil
}

func total(counted map[string]int) int {
	sum := 0
	for _, n := range counted {
		sum += n
	}
	return sum
}
