package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"shoal/bench/lab"
	"shoal/bench/load"
)

// The names and ports of the show.
const (
	network  = "app"
	web      = "web"
	solo     = "solo"
	roundRob = "rr"
	client   = "client"
	image    = "shoal/whoami"

	webPort  = "8080"
	soloPort = "8081"
	replicas = 6
	// asked is how often a host is asked when answers are counted.
	asked = 60
)

// createService is step 2.
func (s *stage) createService(ctx context.Context) error {
	if _, err := s.netctl(ctx, s.front, "network", "create", "-d", "overlay", network); err != nil {
		return err
	}
	began := time.Now()
	answered := make(chan time.Time, 1)
	s.start(ctx, func(ctx context.Context) {
		// What fails here fails again, and is told, where the ports are asked.
		if at, err := await(ctx, "all replicas to answer", func() error { return s.answersEverywhere(ctx, replicas) }); err == nil {
			answered <- at
		}
		close(answered)
	})
	err := s.progress(ctx, s.front, "service", "create", "--name", web, "--network", network,
		"--replicas", fmt.Sprint(replicas), "-p", webPort+":80", image)
	if err != nil {
		return err
	}
	if _, _, err := s.settled(ctx, web, replicas, nil); err != nil {
		return err
	}
	at, ok := <-answered
	s.claim("a service of 6 replicas comes up", ok, "create to all 6 answering through every host: %s", load.Round(at.Sub(began)))
	if _, err := s.netctl(ctx, s.front, "service", "ls"); err != nil {
		return err
	}
	_, err = s.netctl(ctx, s.front, "service", "ps", web)
	return err
}

// answersEverywhere complains unless n tasks answer through every host that has
// power.
func (s *stage) answersEverywhere(ctx context.Context, n int) error {
	for _, h := range s.hosts {
		if h.Name == s.dark {
			continue
		}
		seen, err := s.seen(ctx, h, webPort, 3*n)
		if err != nil {
			return fmt.Errorf("through %s: %w", h.Name, err)
		}
		if len(seen) != n {
			return fmt.Errorf("through %s %d tasks answer, not %d", h.Name, len(seen), n)
		}
	}
	return nil
}

// seen asks a host's port some times and counts the tasks that answered.
func (s *stage) seen(ctx context.Context, h lab.Host, port string, times int) (map[string]int, error) {
	ask := load.Asker(net.JoinHostPort(h.Address.String(), port), nil)
	found := map[string]int{}
	for range times {
		task, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		found[task]++
	}
	return found, nil
}

// askEveryHost is step 3.
func (s *stage) askEveryHost(ctx context.Context) error {
	held := true
	var figures []string
	for _, h := range s.hosts {
		counted, err := s.countAnswers(ctx, h, webPort, "task")
		if err != nil {
			return err
		}
		held = held && total(counted) == asked && len(counted) == replicas
		figures = append(figures, fmt.Sprintf("%s %d of %d by %d tasks", h.Name, total(counted), asked, len(counted)))
	}
	s.claim("every host answers, all 6 replicas take part", held, "%s", strings.Join(figures, ", "))
	return s.askForSolo(ctx)
}

// askForSolo asks every host for a service that sits on one.
func (s *stage) askForSolo(ctx context.Context) error {
	only := s.hosts[1].Name
	_, err := s.netctl(ctx, s.front, "service", "create", "-d", "-q", "--no-resolve-image", "--name", solo, "--network", network,
		"--constraint", "node.hostname=="+only, "--replicas", "2", "-p", soloPort+":80", image)
	if err != nil {
		return err
	}
	tasks, _, err := s.settled(ctx, solo, 2, nil)
	if err != nil {
		return err
	}
	for _, h := range s.hosts {
		// A task that runs may still be on its way into every host's tables.
		_, err := await(ctx, solo+" through "+h.Name, func() error {
			_, err := s.seen(ctx, h, soloPort, len(tasks))
			return err
		})
		if err != nil {
			return err
		}
	}
	held := true
	var figures []string
	for _, h := range s.hosts {
		counted, err := s.countAnswers(ctx, h, soloPort, "node")
		if err != nil {
			return err
		}
		held = held && counted[only] == asked && len(counted) == 1
		figures = append(figures, fmt.Sprintf("%s %d of %d by %s", h.Name, total(counted), asked,
			strings.Join(slices.Sorted(maps.Keys(counted)), " ")))
	}
	s.claim("a service on "+only+" alone is answered by all hosts", held, "%s", strings.Join(figures, ", "))
	return nil
}

// countAnswers shows how often which task or node answers through a host.
func (s *stage) countAnswers(ctx context.Context, h lab.Host, port, what string) (map[string]int, error) {
	url := "http://" + net.JoinHostPort(h.Address.String(), port) + "/"
	output, err := s.piped(ctx, []string{s.program("whoami"), "get", "-n", fmt.Sprint(asked), url}, countLines(what))
	if err != nil {
		return nil, err
	}
	return counts(output)
}

// countLines is the end of a pipeline that counts lines WHAT=VALUE by value.
func countLines(what string) string { return "grep ^" + what + "= | sort | uniq -c" }
