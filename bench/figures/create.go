package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
)

const (
	replicas      = 3
	firstPort     = 18080
	answerTimeout = 20 * time.Second
)

// create measures one service at a time: a round begins when nothing is left of
// the one before.
func create(ctx context.Context, l *lab.Lab, rounds int) error {
	s := &scene{l: l}
	var took []time.Duration
	for i := range rounds {
		d, err := s.createOnce(ctx, i)
		if err != nil {
			return err
		}
		fmt.Printf("round %2d: all %d replicas answered through every host after %d ms\n", i+1, replicas, d.Milliseconds())
		took = append(took, d)
	}
	fmt.Println("service create → all answer on every host:", distribution(took))
	return footprint(l)
}

func (s *scene) createOnce(ctx context.Context, round int) (took time.Duration, err error) {
	port := uint32(firstPort + round)
	n := uint64(replicas)
	spec := swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: fmt.Sprintf("figure-%d", round)},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "shoal/whoami:latest"}},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &n}},
		EndpointSpec: &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: port}}},
	}
	began := time.Now()
	var made swarm.ServiceCreateResponse
	if err := s.call(ctx, http.MethodPost, "/services/create", spec, &made); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.removeWhole(context.WithoutCancel(ctx), made.ID)) }()
	waiting, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	errs := make([]error, len(s.l.Hosts()))
	var wg sync.WaitGroup
	for i, h := range s.l.Hosts() {
		wg.Go(func() { errs[i] = allAnswer(waiting, h, port) })
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

// removeWhole removes a service and waits until no task of it is left.
func (s *scene) removeWhole(ctx context.Context, id string) error {
	if err := s.call(ctx, http.MethodDelete, "/services/"+id, nil, nil); err != nil {
		return err
	}
	return await(ctx, "the end of the service's tasks", func() error {
		list, err := s.list(ctx, nil)
		if slices.ContainsFunc(list, func(t swarm.Task) bool { return t.ServiceID == id }) {
			err = errors.New("some are left")
		}
		return err
	})
}

// allAnswer asks one host until every replica has answered through it.
func allAnswer(ctx context.Context, h lab.Host, port uint32) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	url := "http://" + net.JoinHostPort(h.Address.String(), strconv.Itoa(int(port))) + "/"
	seen := map[string]bool{}
	for len(seen) < replicas {
		if ctx.Err() != nil {
			return fmt.Errorf("through %s only %d of %d replicas answered", h.Name, len(seen), replicas)
		}
		if task := whoAnswers(ctx, &client, url); task != "" {
			seen[task] = true
			continue
		}
		sleep(ctx, 5*time.Millisecond)
	}
	return nil
}

func whoAnswers(ctx context.Context, client *http.Client, url string) string {
	return line(ctx, client, url, "task=")
}

// line is what follows the beginning in the answer of a whoami, "" without one.
func line(ctx context.Context, client *http.Client, url, beginning string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	resp, err := client.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	for _, text := range strings.Split(string(body), "\n") {
		if rest, ok := strings.CutPrefix(text, beginning); ok {
			return rest
		}
	}
	return ""
}

// footprint prints the resident memory of every daemon of the lab.
func footprint(l *lab.Lab) error {
	for _, h := range l.Hosts() {
		pid, running := l.DaemonPid(h)
		if !running {
			return fmt.Errorf("shoald does not run on %s", h.Name)
		}
		kib, err := residentKiB(pid)
		if err != nil {
			return err
		}
		fmt.Printf("shoald on %s: %d MiB resident\n", h.Name, kib/1024)
	}
	return containerdFootprint()
}

func residentKiB(pid int) (int, error) {
	f, err := os.Open(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) == 3 && fields[0] == "VmRSS:" {
			return strconv.Atoi(fields[1])
		}
	}
	return 0, fmt.Errorf("process %d says nothing of its memory", pid)
}

func containerdFootprint() error {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	for _, comm := range comms {
		name, err := os.ReadFile(comm)
		if err != nil || strings.TrimSpace(string(name)) != "containerd" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(comm)))
		if err != nil {
			continue
		}
		kib, err := residentKiB(pid)
		if err != nil {
			continue // it ended meanwhile
		}
		fmt.Printf("containerd (process %d): %d MiB resident\n", pid, kib/1024)
	}
	return nil
}
