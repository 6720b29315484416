package main

import (
	"fmt"
	"net/netip"

	"shoal/dataplane/ipvs"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
)

// Clients on the plain overlay whose namespaces Shoal's balancer has filled, with
// one service and with many: does a new connection cost more where there are many?
const (
	fewLast, manyLast = 12, 13
	servicesPrefix    = "10.100.0.0/15"
)

// firstService is the address of the service that is asked; the others follow, and
// nobody asks them.
var firstService = netip.MustParseAddr("10.100.0.1")

// many fills the clients' namespaces.
func (s *site) many(services int, by lb.Driver) {
	for name, n := range map[string]int{"k1": 1, "k2": services} {
		s.ip(name, "route add "+servicesPrefix+" dev eth0\n")
		s.client(name, path(name))
		if s.err == nil {
			s.err = fillServices(s, path(name), n, by)
		}
	}
}

// balancer is Shoal's own of that name, or the one that a node chooses by itself.
func balancer(name string) lb.Driver {
	if name == "ipvs" {
		return ipvs.New()
	}
	return nft.New()
}

// fillServices makes services of every port, as virtual IPs are.
func fillServices(s *site, namespace string, services int, by lb.Driver) error {
	wish, addr := lb.Desired{Namespace: namespace}, firstService
	for i := range services {
		wish.Services = append(wish.Services, lb.Service{Front: lb.Front{Addr: addr}, Name: fmt.Sprintf("service%d", i),
			Backends: []lb.Backend{{Addr: plainNet.addr(21), Task: fmt.Sprintf("service%d.1", i)}}})
		addr = addr.Next()
	}
	if _, err := by.Apply(s.ctx, wish); err != nil {
		return fmt.Errorf("load %d services: %w", services, err)
	}
	return nil
}

// servicesScenario compares them.
func (r *rig) servicesScenario(services int) scenario {
	return scenario{Name: "services", What: "task to virtual IP with many services loaded, server on the same host", contenders: []contender{
		r.way(nameDirect, "a plain overlay, the server's own address", "c1", "s1", plainNet.addr(21), portServer),
		r.way(nameRaw, rawWords()+" in a namespace between client and server, one service", "c1", "s1", netip.MustParseAddr(rawVIPNear), portServer),
		r.way(nameOne, "Shoal's balancer in the client's namespace, one service", "k1", "s1", firstService, portServer),
		r.way(nameMany, fmt.Sprintf("Shoal's balancer in the client's namespace, %d services", services), "k2", "s1", firstService, portServer),
	}}
}
