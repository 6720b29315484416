//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab/labtest"
	traffic "shoal/bench/load"
	"shoal/overlay/netns"
)

// heldNames: a rolling update of a service that is balanced by its name alone
// loses no request of clients which keep every answer as long as they may.
func heldNames(w *world) {
	app := w.network("held-net")
	w.start("held-web", 4, attached(app), roundRobin)
	clients := w.startGlobal("held-client", attached(app))
	var routes []*traffic.Route
	for _, c := range clients {
		keeper := &keeper{client: c}
		routes = append(routes, &traffic.Route{Name: "from " + c.NodeID, Ask: traffic.AskerWithin(labtest.Within(traffic.Timeout), "held-web.:80", keeper.dial)})
	}
	prober := traffic.New(labtest.Within(10*time.Millisecond), routes...)
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() { defer close(done); prober.Run(ctx) }()
	end := sync.OnceFunc(func() { cancel(); <-done })
	defer end()
	for range 2 {
		w.updated("held-web", roundRobin, func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ForceUpdate++
			s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 2, Monitor: time.Millisecond, FailureAction: swarm.UpdateFailureActionPause, Order: swarm.UpdateOrderStopFirst}
		})
		w.eventually(60*time.Second, "the update is completed", func() error {
			s, err := w.service("held-web")
			if err == nil && (s.UpdateStatus == nil || s.UpdateStatus.State != swarm.UpdateStateCompleted) {
				err = fmt.Errorf("it is %+v", s.UpdateStatus)
			}
			return err
		})
	}
	end()
	samples, lost := prober.Taken(), []traffic.Sample{}
	for _, s := range samples {
		if s.Failed != "" {
			lost = append(lost, s)
		}
	}
	if len(lost) > 0 || len(samples) < 100 {
		w.Fatalf("%d of %d requests were lost:\n%s", len(lost), len(samples), traffic.Details(lost, samples[0].Began))
	}
	w.Logf("%d requests by answers kept for their TTL, none lost", len(samples))
}

// keeper is a client that asks for a name again only when its answer has run out.
type keeper struct {
	client swarm.Task
	mu     sync.Mutex
	addrs  []string
	until  time.Time
}

func (k *keeper) dial(ctx context.Context, protocol, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addr, err := k.pick(name)
	if err != nil {
		return nil, err
	}
	return netns.Dial(ctx, fmt.Sprintf("/proc/%d/ns/net", pid(k.client)), protocol, net.JoinHostPort(addr, port))
}

func (k *keeper) pick(name string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Now().After(k.until) {
		answer, err := query(k.client, name, dns.TypeA)
		if err != nil {
			return "", err
		}
		if k.addrs = values(answer.Answer); len(k.addrs) == 0 {
			return "", errors.New("the name has no address")
		}
		k.until = time.Now().Add(time.Duration(answer.Answer[0].Header().Ttl) * time.Second)
	}
	return k.addrs[rand.IntN(len(k.addrs))], nil
}
