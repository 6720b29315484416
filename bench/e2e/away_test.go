//go:build lab

package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab/labtest"
	steady "shoal/bench/load"
	"shoal/overlay/netns"
)

// absence is how long a daemon is away.
const absence = time.Second

// shoaldAway: while a host's daemon is stopped or dead and when it is back, every
// request and every lookup is answered, from outside and from tasks on every host;
// and when the name server dies, it is back within two seconds.
func shoaldAway(w *world) {
	id := w.network("away-net")
	victim := w.host(2)
	w.start("away-web", 6, published(8230, network.TCP), attached(id))
	w.create("away-client", 0, attached(id), global)
	clients := w.running("away-client", len(w.lab.Hosts()), 30*time.Second)
	// A packet that the machine drops under the tests' own load is sent again.
	ask := func(address string, dial steady.Dialer) steady.Ask {
		return steady.AskerWithin(labtest.Within(3*time.Second), address, dial)
	}
	var routes []*steady.Route
	for _, h := range w.lab.Hosts() {
		routes = append(routes, &steady.Route{Name: "through " + h.Name, Ask: ask(target(h, 8230), nil)})
	}
	for _, client := range clients {
		host := w.hostname(client.NodeID)
		dial := fromTask(client)
		for _, name := range []string{"away-web", "tasks.away-web"} {
			routes = append(routes, &steady.Route{Name: "lookup of " + name + " on " + host, Ask: steady.Lookup(name, dial)})
		}
		service, err := w.service("away-web")
		w.must(err)
		routes = append(routes, &steady.Route{Name: "task on " + host, Ask: ask(net.JoinHostPort(virtual(service, id), "80"), dial)})
	}
	for _, r := range routes {
		w.eventually(15*time.Second, "an answer: "+r.Name, func() error { _, err := r.Ask(w.Context()); return err })
	}
	prober := steady.New(4*time.Millisecond, routes...)
	ctx, stop := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); prober.Run(ctx) }()
	servers := w.nameServers()
	began := time.Now()
	w.must(w.lab.StopDaemon(w.Context(), victim))
	time.Sleep(labtest.Within(absence))
	w.must(w.lab.Heal(w.Context()))
	time.Sleep(labtest.Within(absence)) // in which it compares all with the kernel
	w.must(w.lab.KillDaemon(w.Context(), victim))
	time.Sleep(labtest.Within(absence))
	w.must(w.lab.Heal(w.Context()))
	time.Sleep(labtest.Within(absence))
	stop()
	<-ended
	if now := w.nameServers(); !slices.Equal(servers, now) {
		w.Errorf("the name servers were processes %v and are %v", servers, now)
	}
	bill := steady.Account(prober.Taken(), began, time.Now(), time.Now())
	w.Logf("a daemon stopped and killed: %s", bill)
	if len(bill.During.Failures) > 0 {
		w.Errorf("lost:\n%s", steady.Details(bill.During.Failures, began))
	}
	w.must(w.lab.KillNameServer(w.Context(), victim))
	died := time.Now()
	for _, r := range routes {
		w.eventually(2*time.Second-time.Since(died), "an answer after the name server's death: "+r.Name, func() error { _, err := r.Ask(w.Context()); return err })
	}
	if now := w.nameServers(); len(now) != len(w.lab.Hosts()) || slices.Equal(servers, now) {
		w.Errorf("the name servers were processes %v and are %v", servers, now)
	}
	w.undrifted()
}

// fromTask connects from a task.
func fromTask(task swarm.Task) steady.Dialer {
	return func(ctx context.Context, kind, address string) (net.Conn, error) {
		return netns.Dial(ctx, fmt.Sprintf("/proc/%d/ns/net", pid(task)), kind, address)
	}
}

// nameServers are the processes of all hosts that answer for tasks.
func (w *world) nameServers() (all []int) {
	w.Helper()
	for _, h := range w.lab.Hosts() {
		pids, err := h.NameServerPids()
		w.must(err)
		all = append(all, pids...)
	}
	return all
}
