package lbtest

import (
	"net/netip"
	"slices"
	"time"

	"shoal/dataplane/lb"
)

// sticks follows one client through the life of services that keep it, of every
// port and of one.
func sticks(c *scene) {
	for _, svc := range []lb.Service{c.any(c.servers...), c.port(lb.TCP, 8080, 81, c.servers...)} {
		at := c.at(max(svc.Port, 80))
		svc.Sticky = time.Hour
		svc.Backends = svc.Backends[:2]
		c.apply(svc)
		first := c.one("tcp", at)
		if svc.Port == 0 {
			for _, proto := range []string{"tcp", "udp"} { // the backend is the client's for every port
				if other := c.one(proto, c.at(81)); other != first {
					c.t.Errorf("%s of another port goes to %s, that of the first to %s", proto, other, first)
				}
			}
		}
		svc.Backends = append(svc.Backends, lb.Backend{Addr: c.servers[2].addr(c.six), Port: svc.Backends[0].Port})
		c.apply(svc)
		if other := c.one("tcp", at); other != first {
			c.t.Errorf("one more backend: the client goes from %s to %s", first, other)
		}
		served := slices.IndexFunc(c.servers, func(h *host) bool { return h.name == first })
		svc.Backends[served].Draining = true
		c.apply(svc)
		second := c.one("tcp", at)
		if second == first {
			c.t.Errorf("the client goes on to %s, which drains", first)
		}
		svc.Backends[served].Draining = false
		c.apply(svc)
		if other := c.one("tcp", at); other != second {
			c.t.Errorf("%s is back: the client goes from %s to %s", first, second, other)
		}
		gone := slices.IndexFunc(c.servers, func(h *host) bool { return h.name == second })
		svc.Backends = slices.Delete(svc.Backends, gone, gone+1)
		c.apply(svc)
		if third := c.one("tcp", at); third == second {
			c.t.Errorf("the client goes on to %s, which is gone", second)
		}
		c.lets(svc, at)
	}
}

// lets waits until the client of a service that keeps it briefly is free, and
// then that of one that keeps nobody.
func (c *scene) lets(svc lb.Service, at netip.AddrPort) {
	c.t.Helper()
	if svc.Sticky = time.Second; c.s.caps.Forgets {
		c.apply(svc)
		met := map[string]bool{}
		for deadline := time.Now().Add(c.s.patience()); len(met) < 2 && time.Now().Before(deadline); {
			met[c.one("tcp", at)] = true
			time.Sleep(svc.Sticky + svc.Sticky/10) // as long as it is remembered
		}
		if len(met) < 2 {
			c.t.Errorf("a client that was kept for %s is not free: only %v", svc.Sticky, met)
		}
	}
	svc.Sticky = 0
	c.apply(svc)
	if got := c.client.count("tcp", at, 6, netip.Addr{}); len(got) != 2 {
		c.t.Errorf("nobody is kept: one client met %v", got)
	}
}

// one asks a few times and returns the one server that answered.
func (c *scene) one(proto string, at netip.AddrPort) string {
	c.t.Helper()
	got := c.client.count(proto, at, 4, c.client.addr(c.six))
	if len(got) != 1 {
		c.t.Fatalf("a client that is kept met %v", got)
	}
	for name := range got {
		return name
	}
	return ""
}
