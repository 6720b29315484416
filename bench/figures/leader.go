package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"shoal/bench/lab"
)

// The pace of the writer, and how long one write may take before it counts as lost.
const (
	writeEvery   = 10 * time.Millisecond
	writeTimeout = 5 * time.Second
	settleTime   = 2 * time.Second // between a heal and the next kill
)

// writer writes every 10 ms through managers that live, and remembers when
// each write was acknowledged.
type writer struct {
	l *lab.Lab

	mu     sync.Mutex
	avoid  string // the host that is being killed: a client would have another address
	acked  []string
	times  []time.Time
	failed int
}

func (w *writer) host(n int) lab.Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	hosts := w.l.Hosts()[:lab.Managers]
	h := hosts[n%len(hosts)]
	if h.Name == w.avoid {
		h = hosts[(n+1)%len(hosts)]
	}
	return h
}

// run writes until ctx ends. Writes do not wait for each other, as those of many
// clients would not.
func (w *writer) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(writeEvery)
	defer tick.Stop()
	slots := make(chan struct{}, 256)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer func() { <-slots; wg.Done() }()
			w.write(n)
		}()
	}
}

// write makes a network: an ordinary write with a name that can be looked up.
func (w *writer) write(n int) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	name := fmt.Sprintf("figure-%d-%d", time.Now().UnixNano(), n)
	req := network.CreateRequest{Name: name, Driver: "overlay"}
	err := w.host(n).Call(ctx, http.MethodPost, "/networks/create", req, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.failed++
		return
	}
	w.acked, w.times = append(w.acked, name), append(w.times, time.Now())
}

// gap is the longest time without an acknowledged write since then.
func (w *writer) gap(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	longest, last := time.Duration(0), since
	for _, t := range w.times {
		if t.After(since) {
			longest, last = max(longest, t.Sub(last)), t
		}
	}
	return longest
}

func leader(ctx context.Context, l *lab.Lab, kills int) error {
	w := &writer{l: l}
	writing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); w.run(writing) }()
	defer func() { stop(); <-done }()
	var gaps []time.Duration
	for i := 1; i <= kills; i++ {
		if !sleep(ctx, settleTime) {
			return ctx.Err()
		}
		h, err := findLeader(ctx, l)
		if err != nil {
			return err
		}
		w.mu.Lock()
		w.avoid = h.Name
		w.mu.Unlock()
		sleep(ctx, 100*time.Millisecond)
		killed := time.Now()
		if err := l.KillDaemon(ctx, h); err != nil {
			return err
		}
		sleep(ctx, settleTime)
		gaps = append(gaps, w.gap(killed))
		fmt.Printf("kill %2d: leader %s, longest gap %d ms\n", i, h.Name, gaps[i-1].Milliseconds())
		if err := l.Heal(ctx); err != nil {
			return err
		}
		w.mu.Lock()
		w.avoid = ""
		w.mu.Unlock()
	}
	stop()
	<-done
	fmt.Println("gap in acknowledged writes:", distribution(gaps))
	return verify(ctx, l, w)
}

// lag is how long a follower may take to show the newest commit: the leader tells
// it with its next heartbeat.
const lag = time.Second

// verify looks every acknowledged write up on every manager, then takes them away.
func verify(ctx context.Context, l *lab.Lab, w *writer) error {
	sleep(ctx, lag)
	for _, h := range l.Hosts()[:lab.Managers] {
		var list []network.Summary
		if err := h.Call(ctx, http.MethodGet, "/networks", nil, &list); err != nil {
			return err
		}
		have := map[string]bool{}
		for _, n := range list {
			have[n.Name] = true
		}
		lost := 0
		for _, name := range w.acked {
			if !have[name] {
				lost++
			}
		}
		fmt.Printf("%s: %d writes acknowledged, %d of them lost, %d refused\n", h.Name, len(w.acked), lost, w.failed)
		if lost > 0 {
			return fmt.Errorf("%d acknowledged writes are lost on %s", lost, h.Name)
		}
	}
	return remove(ctx, l.Hosts()[0], w.acked)
}

// remove takes the networks away again, a few at a time.
func remove(ctx context.Context, h lab.Host, names []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(32)
	for _, name := range names {
		group.Go(func() error { return h.Call(ctx, http.MethodDelete, "/networks/"+name, nil, nil) })
	}
	return group.Wait()
}

func findLeader(ctx context.Context, l *lab.Lab) (lab.Host, error) {
	var nodes []swarm.Node
	for _, h := range l.Hosts()[:lab.Managers] {
		if err := h.Call(ctx, http.MethodGet, "/nodes", nil, &nodes); err == nil {
			break
		}
	}
	for _, n := range nodes {
		if n.ManagerStatus != nil && n.ManagerStatus.Leader {
			return l.Host(n.Description.Hostname)
		}
	}
	return lab.Host{}, fmt.Errorf("no manager says that it leads")
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
