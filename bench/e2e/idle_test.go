//go:build lab

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/network"

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
	open := map[string]*caller{}
	for _, h := range w.lab.Hosts() {
		c, err := dialFrom("tcp", h, 8230, netip.AddrPort{})
		w.must(err)
		open["the mesh of "+h.Name] = c
	}
	service, err := w.service("idle")
	w.must(err)
	for _, vip := range service.Endpoint.VirtualIPs {
		if vip.NetworkID != id {
			continue
		}
		for _, h := range w.lab.Hosts() {
			ns := filepath.Join(h.Dir, "exec", "netns", "task-"+client.ID)
			if !netns.Exists(ns) {
				continue
			}
			ctx, cancel := context.WithTimeout(w.Context(), labtest.Within(askPatience))
			c, err := netns.Dial(ctx, ns, "tcp", netip.AddrPortFrom(vip.Addr.Addr(), 80).String())
			cancel()
			w.must(err)
			open["the virtual IP"] = &caller{Conn: c, lines: bufio.NewReader(c), proto: "tcp"}
		}
	}
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
