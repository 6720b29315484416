package lbtest

import "shoal/dataplane/lb"

// both lets one namespace balance a service at an address of each family, as on
// networks that have both: what changes in one leaves the other's flows alone.
func both(c *scene) {
	four, six := *c, *c
	six.six = true
	wish := func(of4, of6 []*host) []lb.Service {
		out := []lb.Service{four.any(of4...), six.any(of6...)}
		for _, p := range []lb.Protocol{lb.TCP, lb.UDP} {
			out = append(out, four.port(p, 8080, 81, of4...), six.port(p, 8080, 81, of6...))
		}
		return out
	}
	check := func(of4, of6 []string) {
		c.t.Helper()
		for _, proto := range []string{"tcp", "udp"} {
			for _, port := range []uint16{80, 8080} {
				four.expect(c.client.count(proto, four.at(port), 6, c.client.addr(false)), of4...)
				six.expect(c.client.count(proto, six.at(port), 6, c.client.addr(true)), of6...)
			}
		}
	}
	c.apply(wish(c.servers, c.servers[1:])...)
	check([]string{"s1", "s2", "s3"}, []string{"s2", "s3"})
	old := map[string]*client{}
	for _, of := range []*scene{&four, &six} {
		for range 3 {
			k, server := of.open("tcp")
			defer k.Close()
			old[of.vip().String()+" "+server] = k
		}
	}
	c.apply(wish(c.servers, nil)...)
	for _, proto := range []string{"tcp", "udp"} {
		four.expect(c.client.count(proto, four.at(80), 6, c.client.addr(false)), "s1", "s2", "s3")
	}
	if err := connectError(c.client, six.at(80)); err == nil {
		c.t.Error("nobody is behind the IPv6 address, but it answers")
	}
	for _, h := range c.servers {
		k := old[four.vip().String()+" "+h.name]
		if k == nil {
			continue
		}
		if server, _, err := k.ask(); err != nil || server != h.name {
			c.t.Errorf("the IPv4 connection to %s after the IPv6 address lost its servers: %q, %v", h.name, server, err)
		}
	}
	c.apply(wish(nil, c.servers[:1])...)
	for _, proto := range []string{"tcp", "udp"} {
		six.expect(c.client.count(proto, six.at(8080), 3, c.client.addr(true)), "s1")
	}
}
