package trace

import (
	"net/netip"
	"slices"
	"testing"

	"shoal/dataplane/lb"
)

// world6 is world with IPv6 beside IPv4 in the routing mesh, and a port of the
// host that leads to a task over the gateway bridge.
func world6() World {
	w := world()
	six := map[string][]netip.Prefix{
		"eth0": prefixes("fd77::1/64"), "shoal_gw": prefixes("fd19::1/64"), "ing0": prefixes("fd28::1/126"),
		"br0": prefixes("fd64::1/64"), "up0": prefixes("fd28::2/126"),
	}
	for i := range w.Namespaces {
		n := &w.Namespaces[i]
		if n.Node != "n1" {
			continue
		}
		for j := range n.Interfaces {
			link := &n.Interfaces[j]
			switch {
			case n.Name == "web.1" && link.Name == "eth2":
				link.Addrs = append(link.Addrs, prefix("fd00::11/64"))
			case n.Name == "" || n.Name == "ingress":
				link.Addrs = append(link.Addrs, six[link.Name]...)
			}
		}
		switch n.Name {
		case "":
			n.Translation.Forwards = append(n.Translation.Forwards,
				lb.Forward{Protocol: lb.TCP, Port: 8080, To: port("[fd28::2]:8080"), Name: "web"},
				lb.Forward{Protocol: lb.TCP, Port: 8090, To: port("[fd19::11]:80"), Name: "edge"})
			n.Translation.Masquerade = append(n.Translation.Masquerade, lb.Egress{Source: prefix("fd19::/64"), Bridge: "shoal_gw"})
		case "ingress":
			n.Routes = append(n.Routes, Route{Dest: prefix("fd00::/64"), Link: "br0"}, Route{Dest: prefix("::/0"), Link: "up0", Via: addr("fd28::1")})
			n.Balance.MasqueradeFrom = append(n.Balance.MasqueradeFrom, prefix("fd28::/126"))
			n.Balance.Services = append(n.Balance.Services, lb.Service{Front: lb.Front{Addr: addr("fd28::2"), Port: 8080, Protocol: lb.TCP},
				Name: "web", Backends: []lb.Backend{{Addr: addr("fd00::11"), Port: 80, Task: "web.1"}}})
		}
	}
	return w
}

// TestTraceOfIPv6: the mesh takes IPv6 clients as it takes others, ::1 included;
// ports of the host are not at ::1.
func TestTraceOfIPv6(t *testing.T) {
	for _, row := range []struct {
		name    string
		packet  Packet
		verdict Verdict
		at      string
		src     string
	}{
		{"from outside", Packet{Node: "n1", Arrives: true, Src: addr("fd77::9"), Dst: port("[fd77::1]:8080"), Protocol: lb.TCP}, Delivered, "n1/web.1", "fd77::9"},
		{"at the loopback address", from("n1", "", "[::1]:8080", lb.TCP), Delivered, "n1/web.1", "fd64::1"},
		{"a port of the host at the loopback address", from("n1", "", "[::1]:8090", lb.TCP), Refused, "n1", "::1"},
	} {
		paths := Trace(world6(), row.packet)
		if len(paths) != 1 || paths[0].Verdict != row.verdict || paths[0].At != row.at || paths[0].Src.String() != row.src {
			t.Errorf("%s: %+v", row.name, paths)
		}
		if slices.ContainsFunc(paths, func(p Path) bool { return p.Dst.Addr().Is4() }) {
			t.Errorf("%s: another family: %+v", row.name, paths)
		}
	}
}
