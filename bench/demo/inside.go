package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"
)

// lookAround is step 4: what a task sees.
func (s *stage) lookAround(ctx context.Context) error {
	leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	// A host that bad days do to nothing: neither the leader nor the one after.
	s.client = s.hosts[leader.Index%len(s.hosts)]
	for _, args := range [][]string{
		{"--name", client, "--constraint", "node.hostname==" + s.client.Name},
		{"--name", roundRob, "--endpoint-mode", "dnsrr", "--replicas", "3"},
	} {
		command := append([]string{"service", "create", "-d", "-q", "--no-resolve-image", "--network", network}, args...)
		if _, err := s.netctl(ctx, s.front, append(command, image)...); err != nil {
			return err
		}
	}
	pid, err := s.clientPid(ctx)
	if err != nil {
		return err
	}
	robins, _, err := s.settled(ctx, roundRob, 3, nil)
	if err != nil {
		return err
	}
	s.note("%s.1 on %s is process %d; its network and files are entered to ask from there", client, s.client.Name, pid)
	if err := s.askVIP(ctx, pid); err != nil {
		return err
	}
	tasks, err := s.tasks(ctx, web)
	if err != nil {
		return err
	}
	if err := s.askName(ctx, pid, "tasks."+web, "tasks."+web+" gives every task's address", addresses(tasks, network)); err != nil {
		return err
	}
	return s.askName(ctx, pid, roundRob, "a dnsrr service gives its tasks' addresses", addresses(robins, network))
}

// clientPid is the process of the task from which the show looks around.
func (s *stage) clientPid(ctx context.Context) (int, error) {
	tasks, _, err := s.settled(ctx, client, 1, nil)
	if err != nil {
		return 0, err
	}
	status := tasks[0].Status.ContainerStatus
	if status == nil || status.PID <= 1 {
		return 0, errors.New("the task " + client + ".1 tells no process")
	}
	return status.PID, nil
}

// inside is a command in a task's network, with the task's files.
func inside(pid int, args ...string) []string {
	return append([]string{"nsenter", "-t", fmt.Sprint(pid), "-n", "-m", "/whoami"}, args...)
}

// virtualAddress is the service's address on the network.
func (s *stage) virtualAddress(ctx context.Context, service string) (string, error) {
	var found swarm.Service
	if err := s.front.Call(ctx, http.MethodGet, "/services/"+service, nil, &found); err != nil {
		return "", err
	}
	tasks, err := s.tasks(ctx, service)
	if err != nil {
		return "", err
	}
	for _, vip := range found.Endpoint.VirtualIPs {
		for _, t := range tasks {
			for _, a := range t.NetworksAttachments {
				if a.Network.ID == vip.NetworkID && a.Network.Spec.Name == network {
					return vip.Addr.Addr().String(), nil
				}
			}
		}
	}
	return "", fmt.Errorf("%s has no virtual address on %s", service, network)
}

// askVIP looks the service up and counts who answers at its address.
func (s *stage) askVIP(ctx context.Context, pid int) error {
	vip, err := s.virtualAddress(ctx, web)
	if err != nil {
		return err
	}
	if err := s.askName(ctx, pid, web, "the name "+web+" gives one virtual address", []string{vip}); err != nil {
		return err
	}
	output, err := s.piped(ctx, inside(pid, "get", "-n", fmt.Sprint(asked), "http://"+web+"/"), countLines("task"))
	if err != nil {
		return err
	}
	counted, err := counts(output)
	if err != nil {
		return err
	}
	least, most := asked, 0
	for _, n := range counted {
		least, most = min(least, n), max(most, n)
	}
	s.claim("that address balances over all replicas", total(counted) == asked && len(counted) == replicas,
		"%d answers of %d tasks, %d to %d each", total(counted), len(counted), least, most)
	return nil
}

// askName claims that a name gives these addresses and no others.
func (s *stage) askName(ctx context.Context, pid int, asked, text string, want []string) error {
	command := inside(pid, "lookup", asked)
	output, err := s.run(ctx, quoted(command), command)
	if err != nil {
		return err
	}
	got := strings.Fields(output)
	slices.Sort(got)
	s.claim(text, slices.Equal(got, want), "%s", strings.Join(got, " "))
	return nil
}
