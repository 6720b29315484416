package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/load"
)

const rollingReplicas = 8

// rolling updates a service again and again, by turns stopping and starting first,
// while clients ask it, rate times a second, over connections of their own and over such as stay open.
func rolling(ctx context.Context, l *lab.Lab, updates, rate int) error {
	s, err := open(ctx, l, rollingReplicas, nil)
	if s != nil {
		defer s.close(ctx)
	}
	if err != nil {
		return err
	}
	end := s.ask(ctx, rate, slices.Concat(s.routes(", one-shot", load.Asker), s.routes(", keep-alive", load.KeepAlive)))
	defer end()
	var took []time.Duration
	for i := range updates {
		began := time.Now()
		if err := s.update(ctx, i); err != nil {
			return err
		}
		took = append(took, time.Since(began))
		fmt.Printf("update %2d: completed after %s, %d requests so far\n", i+1, load.Round(took[i]), len(s.prober.Taken()))
	}
	end()
	fmt.Println("an update of", rollingReplicas, "tasks:", distribution(took))
	return account(s.prober)
}

// update replaces every task once, two at a time.
func (s *scene) update(ctx context.Context, turn int) error {
	var found swarm.Service
	if err := s.call(ctx, http.MethodGet, "/services/"+sceneWeb, nil, &found); err != nil {
		return err
	}
	order := []swarm.UpdateOrder{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst}[turn%2]
	found.Spec.TaskTemplate.ForceUpdate++
	found.Spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: 2, Monitor: time.Second, FailureAction: swarm.UpdateFailureActionPause, Order: order}
	since := time.Now()
	version := strconv.FormatUint(found.Version.Index, 10)
	if err := s.call(ctx, http.MethodPost, "/services/"+found.ID+"/update?version="+version, found.Spec, nil); err != nil {
		return err
	}
	return await(ctx, "the update", func() error {
		if err := s.call(ctx, http.MethodGet, "/services/"+found.ID, nil, &found); err != nil {
			return err
		}
		st := found.UpdateStatus
		if st == nil || st.StartedAt == nil || st.StartedAt.Before(since) {
			return errors.New("it has not begun")
		}
		if st.State != swarm.UpdateStateCompleted {
			return fmt.Errorf("it is %s: %s", st.State, st.Message)
		}
		return nil
	})
}

// account prints the requests by route, and fails when one was lost.
func account(p *load.Prober) error {
	type count struct{ all, lost int }
	routes := map[string]*count{}
	var lost []load.Sample
	all := p.Taken()
	for _, sample := range all {
		c := routes[sample.Route]
		if c == nil {
			c = &count{}
			routes[sample.Route] = c
		}
		c.all++
		if sample.Failed != "" {
			c.lost++
			lost = append(lost, sample)
		}
	}
	for _, name := range sortedKeys(routes) {
		fmt.Printf("%-36s %7d requests, %d lost\n", name, routes[name].all, routes[name].lost)
	}
	fmt.Printf("all: %d requests, %d lost; %d turns left out because too many requests were in flight\n", len(all), len(lost), p.HeldBack())
	if len(lost) == 0 {
		return nil
	}
	fmt.Print(load.Details(lost, all[0].Began))
	return fmt.Errorf("%d requests were lost", len(lost))
}
