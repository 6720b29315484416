//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab/labtest"
	"shoal/overlay/netns"
)

// idleFor is how long connections are left alone: SHOAL_IDLE, or a moment.
func idleFor(w *world) time.Duration {
	text := os.Getenv("SHOAL_IDLE")
	if text == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	w.must(err)
	return d
}

// idle: a connection that nobody has used for a while goes on, through the mesh of
// every host and through a virtual IP.
func idle(w *world) {
	id := w.network("idle-net")
	web := w.start("idle", 3, published(8230, network.TCP), attached(id))
	client := w.start("idle-client", 1, attached(id))[0]
	w.answered(ask, w.lab.Hosts(), 8230, 12, "task", slots("idle", web))
	open := w.openWays("idle", 8230, client, id)
	if len(open) != len(w.lab.Hosts())+1 {
		w.Fatalf("only %d connections", len(open))
	}
	tasks := map[string]string{}
	for way, c := range open {
		defer c.Close()
		r, err := c.ask()
		if err != nil {
			w.Fatalf("through %s: %v", way, err)
		}
		tasks[way] = r["task"]
	}
	began := time.Now()
	select {
	case <-time.After(idleFor(w)):
	case <-w.Context().Done():
	}
	for way, c := range open {
		r, err := c.ask()
		if err == nil && r["task"] != tasks[way] {
			err = fmt.Errorf("%s answers, not %s", r["task"], tasks[way])
		}
		if err != nil {
			w.Errorf("through %s, after %s of silence: %v", way, time.Since(began).Round(time.Second), err)
			continue
		}
		w.Logf("through %s: %s answers after %s of silence", way, r["task"], time.Since(began).Round(time.Second))
	}
}

// openWays opens a connection through the mesh of every host, and one from a client
// task through the virtual IP in a network.
func (w *world) openWays(service string, port int, client swarm.Task, networkID string) map[string]*caller {
	w.Helper()
	open := map[string]*caller{}
	for _, h := range w.lab.Hosts() {
		c, err := dialFrom("tcp", h, port, netip.AddrPort{})
		w.must(err)
		open["the mesh of "+h.Name] = c
	}
	s, err := w.service(service)
	w.must(err)
	ctx, cancel := context.WithTimeout(w.Context(), labtest.Within(askPatience))
	defer cancel()
	c, err := netns.Dial(ctx, taskSpot(service, client).namespace, "tcp", net.JoinHostPort(virtual(s, networkID), "80"))
	w.must(err)
	open["the virtual IP"] = newCaller(c, "tcp")
	return open
}
