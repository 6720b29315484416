package lbtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"shoal/dataplane/lb"
)

// packets runs what only real packets can show, for both address families.
func (s *suite) packets(t *testing.T) {
	for _, six := range []bool{false, true} {
		family := map[bool]string{false: "IPv4", true: "IPv6"}[six]
		t.Run(family, func(t *testing.T) {
			tests := map[string]func(*scene){
				"all backends take part and see the client": balances,
				"a task calls its own service":              calls,
				"a front of one port translates it":         translates,
				"draining":                                  drains,
				"a removed backend gets nothing":            removes,
				"no backend refuses at once":                refuses,
				"forwarded and masqueraded":                 forwards,
				"heals under traffic":                       heals,
				"weights and source hashing":                weighs,
				"clients are kept at their backend":         sticks,
				"source ports are used again":               portsAgain,
				"clients that meet a change":                meetsChanges,
			}
			for name, test := range tests {
				t.Run(name, func(t *testing.T) { test(s.scene(t, six)) })
			}
		})
	}
	t.Run("both families at once", func(t *testing.T) { both(s.scene(t, false)) })
}

func (s *suite) scene(t *testing.T, six bool) *scene {
	c := &scene{t: t, s: s, six: six, d: s.newDriver(t), n: s.newNetwork(t)}
	c.client = c.n.join("client", 1)
	for i := range 3 {
		h := c.n.join(fmt.Sprintf("s%d", i+1), byte(11+i))
		h.serve(80)
		h.serve(81)
		c.servers = append(c.servers, h)
	}
	return c
}

// scene is a client and three servers s1, s2, s3 in one network, each serving
// TCP and UDP on ports 80 and 81; the client's own namespace balances.
type scene struct {
	t       *testing.T
	s       *suite
	six     bool
	d       lb.Driver
	n       *network
	client  *host
	servers []*host
}

// vip is the virtual address of the scene.
func (c *scene) vip() netip.Addr { return address(c.six, 100) }

func (c *scene) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(c.vip(), port) }

// any is a service of every port on these hosts.
func (c *scene) any(hosts ...*host) lb.Service {
	svc := lb.Service{Front: lb.Front{Addr: c.vip()}, Name: "any"}
	for _, h := range hosts {
		svc.Backends = append(svc.Backends, lb.Backend{Addr: h.addr(c.six), Task: h.name})
	}
	return svc
}

// port is a service of one port on these hosts.
func (c *scene) port(p lb.Protocol, front, target uint16, hosts ...*host) lb.Service {
	svc := c.any(hosts...)
	svc.Front.Port, svc.Front.Protocol, svc.Name = front, p, "port"
	for i := range svc.Backends {
		svc.Backends[i].Port = target
	}
	return svc
}

func (c *scene) apply(services ...lb.Service) {
	c.t.Helper()
	apply(c.t, c.d, lb.Desired{Namespace: c.client.ns, Services: services})
}

func (c *scene) expect(got map[string]int, names ...string) {
	c.t.Helper()
	for _, name := range names {
		if got[name] == 0 {
			c.t.Errorf("%s took no part: %v", name, got)
		}
	}
	if len(got) != len(names) {
		c.t.Errorf("answers of %v, want only %v", got, names)
	}
}

func balances(c *scene) {
	c.apply(c.any(c.servers...))
	for _, proto := range []string{"tcp", "udp"} {
		for _, port := range []uint16{80, 81} {
			got := c.client.count(proto, c.at(port), 9, c.client.addr(c.six))
			c.expect(got, "s1", "s2", "s3")
			for name, n := range got {
				if n != 3 {
					c.t.Errorf("%s: round robin gave %s %d of 9", proto, name, n)
				}
			}
		}
	}
	if code := connectError(c.client, c.at(82)); !errors.Is(code, syscall.ECONNREFUSED) {
		c.t.Errorf("a port that no server listens on: %v, want refused", code)
	}
}

func calls(c *scene) {
	c.client.serve(80)
	c.client.serve(81)
	c.apply(c.any(c.client), c.portOf(101, lb.TCP, c.client), c.portOf(101, lb.UDP, c.client))
	for _, proto := range []string{"tcp", "udp"} {
		c.expect(c.client.count(proto, c.at(80), 3, netip.Addr{}), "client")
		c.expect(c.client.count(proto, netip.AddrPortFrom(address(c.six, 101), 9090), 3, netip.Addr{}), "client")
	}
	c.apply(c.any(c.client, c.servers[0]))
	for _, proto := range []string{"tcp", "udp"} {
		c.expect(c.client.count(proto, c.at(80), 6, c.client.addr(c.six)), "client", "s1")
	}
}

// portOf is a front 9090 of another address that leads to port 81 of one host.
func (c *scene) portOf(last byte, p lb.Protocol, h *host) lb.Service {
	s := c.port(p, 9090, 81, h)
	s.Addr = address(c.six, last)
	return s
}

func translates(c *scene) {
	tcp, udp := c.port(lb.TCP, 8080, 81, c.servers[0]), c.port(lb.UDP, 8080, 81, c.servers[1])
	c.apply(tcp, udp)
	c.expect(c.client.count("tcp", c.at(8080), 4, c.client.addr(c.six)), "s1")
	c.expect(c.client.count("udp", c.at(8080), 4, c.client.addr(c.six)), "s2")
	// A front of one port comes before the front of every port.
	c.apply(tcp, c.any(c.servers[2]))
	c.expect(c.client.count("tcp", c.at(8080), 4, netip.Addr{}), "s1")
	c.expect(c.client.count("tcp", c.at(80), 4, netip.Addr{}), "s3")
}

func drains(c *scene) {
	svc := c.any(c.servers[0], c.servers[1])
	c.apply(svc)
	old := map[string]*client{}
	for range 2 {
		k, server := c.open("tcp")
		defer k.Close()
		old[server] = k
	}
	svc.Backends[0].Draining = true
	c.apply(svc)
	for name, k := range old {
		if server, _, err := k.ask(); err != nil || server != name {
			c.t.Errorf("the connection to %s after draining: %q, %v", name, server, err)
		}
	}
	for _, proto := range []string{"tcp", "udp"} {
		c.expect(c.client.count(proto, c.at(80), 6, netip.Addr{}), "s2")
	}
	svc.Backends[1].Draining = true
	c.apply(svc)
	if err := connectError(c.client, c.at(80)); !errors.Is(err, syscall.ECONNREFUSED) {
		c.t.Errorf("everyone drains: %v, want refused", err)
	}
	for name, k := range old {
		if server, _, err := k.ask(); err != nil || server != name {
			c.t.Errorf("the connection to %s while everyone drains: %q, %v", name, server, err)
		}
	}
}

// open makes a flow and says who answered.
func (c *scene) open(proto string) (*client, string) {
	c.t.Helper()
	k, err := c.client.dial(proto, c.at(80))
	if err != nil {
		c.t.Fatal(err)
	}
	server, _, err := k.ask()
	if err != nil {
		c.t.Fatal(err)
	}
	return k, server
}

func removes(c *scene) {
	c.apply(c.any(c.servers[0]))
	udp, _ := c.open("udp")
	defer udp.Close()
	tcp, _ := c.open("tcp")
	defer tcp.Close()
	c.apply(c.any(c.servers[1]))
	c.expect(c.client.count("tcp", c.at(80), 4, netip.Addr{}), "s2")
	c.moves(udp, "s2")
	start := time.Now()
	if server, _, err := tcp.ask(); err == nil {
		c.t.Errorf("the connection to the removed server goes on: %q answers", server)
	} else if errors.Is(err, context.DeadlineExceeded) || time.Since(start) > c.s.patience()*9/10 {
		c.t.Errorf("the connection to the removed server hangs: %v", err)
	}
	c.apply()
	checkRead(c.t, c.d, lb.Desired{Namespace: c.client.ns})
	c.apply(c.any(c.servers[2]))
	c.moves(udp, "s3")
}

// moves waits until an established datagram flow is answered by the server; the
// first answer must be its. Single datagrams may be lost.
func (c *scene) moves(k *client, to string) {
	c.t.Helper()
	k.wait = c.s.patience() / 10
	for range 10 {
		server, _, err := k.ask()
		if err != nil {
			continue
		}
		if server != to {
			c.t.Errorf("the flow is answered by %q, want %q", server, to)
		}
		return
	}
	c.t.Errorf("the flow is answered by nobody, want %q", to)
}

// connectError returns what connecting meets, as the system's error.
func connectError(h *host, to netip.AddrPort) error {
	k, err := h.dial("tcp", to)
	if err == nil {
		k.Close()
		return nil
	}
	return err
}

func refuses(c *scene) {
	check := func() {
		c.t.Helper()
		start := time.Now()
		for _, port := range []uint16{80, 8080} {
			if err := connectError(c.client, c.at(port)); !errors.Is(err, syscall.ECONNREFUSED) {
				c.t.Errorf("tcp %d: %v, want refused", port, err)
			}
			// A kernel that drops a datagram while it is being sent says EPERM.
			if _, _, err := c.client.once("udp", c.at(port)); !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.EPERM) {
				c.t.Errorf("udp %d: %v, want refused", port, err)
			}
		}
		if took := time.Since(start); took > c.s.patience()/2 {
			c.t.Errorf("refusing took %s", took)
		}
	}
	empty := []lb.Service{c.any(), c.port(lb.TCP, 8080, 80), c.port(lb.UDP, 8080, 80)}
	c.apply(empty...)
	check()
	c.apply(c.any(c.servers[0]), c.port(lb.TCP, 8080, 80, c.servers[1]), c.port(lb.UDP, 8080, 80, c.servers[1]))
	for _, proto := range []string{"tcp", "udp"} {
		c.expect(c.client.count(proto, c.at(80), 2, netip.Addr{}), "s1")
		c.expect(c.client.count(proto, c.at(8080), 2, netip.Addr{}), "s2")
	}
	c.apply(empty...)
	check()
}

// forwards lets a director between an outer host and the network balance, with
// its own address on both sides.
func forwards(c *scene) {
	director := c.n.join("director", 5)
	outer := &host{n: c.n, ns: c.s.namespace(c.t), name: "outer"}
	outside, inside := netip.MustParsePrefix("192.168.99.1/24"), netip.MustParsePrefix("192.168.99.2/24")
	if c.six {
		outside, inside = netip.MustParsePrefix("fd99::1/64"), netip.MustParsePrefix("fd99::2/64")
	}
	ip(c.t, director.ns, "link add up0 type veth peer name up0 netns "+base(outer.ns))
	ip(c.t, director.ns, "addr add "+inside.String()+" dev up0"+nodad(c.six)+"\nlink set up0 up")
	ip(c.t, outer.ns, "addr add "+outside.String()+" dev up0"+nodad(c.six)+"\nlink set up0 up")
	at := netip.AddrPortFrom(inside.Addr(), 8080)
	wish := func(hosts ...*host) lb.Desired {
		d := lb.Desired{Namespace: director.ns, MasqueradeFrom: []netip.Prefix{outside.Masked()}}
		for _, p := range []lb.Protocol{lb.TCP, lb.UDP} {
			s := c.port(p, 8080, 80, hosts...)
			s.Addr = at.Addr()
			d.Services = append(d.Services, s)
		}
		return d
	}
	apply(c.t, c.d, wish(c.servers...))
	for _, proto := range []string{"tcp", "udp"} {
		c.expect(outer.count(proto, at, 6, director.addr(c.six)), "s1", "s2", "s3")
	}
	c.keepsSource(outer, at, wish)
	apply(c.t, c.d, wish(c.servers...))
	k, err := outer.dial("udp", at)
	if err != nil {
		c.t.Fatal(err)
	}
	defer k.Close()
	if _, _, err := k.ask(); err != nil {
		c.t.Fatal(err)
	}
	apply(c.t, c.d, wish(c.servers[2]))
	c.moves(k, "s3")
	apply(c.t, c.d, wish())
	if err := connectError(outer, at); !errors.Is(err, syscall.ECONNREFUSED) {
		c.t.Errorf("no backend, from outside: %v, want refused", err)
	}
}

// keepsSource lets the servers answer through the director: only clients that it
// was told to hide, and all clients of a service that asks for it, are hidden.
func (c *scene) keepsSource(outer *host, at netip.AddrPort, wish func(...*host) lb.Desired) {
	outside, director := netip.MustParseAddr("192.168.99.1"), address(c.six, 5)
	if c.six {
		outside = netip.MustParseAddr("fd99::1")
	}
	for _, s := range c.servers {
		ip(c.t, s.ns, fmt.Sprintf("route add %s via %s", outside, director))
	}
	d := wish(c.servers...)
	d.MasqueradeFrom = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	for i := range d.Services {
		d.Services[i].Masquerade = d.Services[i].Protocol == lb.UDP
	}
	apply(c.t, c.d, d)
	c.expect(outer.count("tcp", at, 6, outside), "s1", "s2", "s3")
	c.expect(outer.count("udp", at, 6, director), "s1", "s2", "s3")
	for i := range d.Services {
		d.Services[i].Masquerade = !d.Services[i].Masquerade
	}
	apply(c.t, c.d, d)
	c.expect(outer.count("tcp", at, 6, director), "s1", "s2", "s3")
	c.expect(outer.count("udp", at, 6, outside), "s1", "s2", "s3")
	d.MasqueradeFrom = nil
	for i := range d.Services {
		d.Services[i].Masquerade = false
	}
	apply(c.t, c.d, d)
	c.expect(outer.count("tcp", at, 6, outside), "s1", "s2", "s3")
}

func nodad(six bool) string {
	if six {
		return " nodad"
	}
	return ""
}

func heals(c *scene) {
	for name, trample := range c.s.caps.Trample {
		c.apply(c.any(c.servers[0], c.servers[1]))
		trample(c.t, c.client.ns)
		if n := apply(c.t, c.d, lb.Desired{Namespace: c.client.ns, Services: []lb.Service{c.any(c.servers[0], c.servers[1])}}); n == 0 {
			c.t.Errorf("%s: nothing was healed", name)
		}
		for _, proto := range []string{"tcp", "udp"} {
			c.expect(c.client.count(proto, c.at(80), 4, c.client.addr(c.six)), "s1", "s2")
		}
	}
}

func weighs(c *scene) {
	svc := c.any(c.servers...)
	for _, a := range c.s.caps.Algorithms {
		svc.Algorithm = a
		for i, w := range []uint32{3, 1, 2} {
			svc.Backends[i].Weight = w
		}
		c.apply(svc)
		got := c.client.count("tcp", c.at(80), 12, c.client.addr(c.six))
		switch a {
		case lb.WeightedRoundRobin:
			if got["s1"] != 6 || got["s2"] != 2 || got["s3"] != 4 {
				c.t.Errorf("wrr 3:1:2 gave %v of 12", got)
			}
		case lb.SourceHash, lb.Maglev:
			if len(got) != 1 {
				c.t.Errorf("one client, hashed by %s, met %v", a, got)
			}
		}
	}
}

// meetsChanges: whoever connects in the moment in which backends come or go reaches
// one of those that stay.
func meetsChanges(c *scene) {
	const changes = 200
	few, all := c.any(c.servers[:2]...), c.any(c.servers...)
	c.apply(all)
	var over atomic.Bool
	var clients sync.WaitGroup
	defer clients.Wait()
	defer over.Store(true)
	for range 2 {
		clients.Go(func() {
			for made := 0; !over.Load(); made++ {
				if err := connectError(c.client, c.at(80)); err != nil {
					c.t.Errorf("after %d connections: %v", made, err)
					return
				}
			}
		})
	}
	for i := range changes {
		if i%2 == 0 {
			c.apply(few)
		} else {
			c.apply(all)
		}
	}
}
