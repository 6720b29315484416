package trace

import (
	"net/netip"

	"shoal/dataplane/lb"
)

// The tables that decide, as plain tools name them.
const (
	// NATTable translates, LBTable balances with nftables, IPVSTable marks for IPVS.
	NATTable  = "inet shoal_nat"
	LBTable   = "inet shoal_lb"
	IPVSTable = "inet shoal_ipvs"

	routes = "routes"
)

// family is the suffix of a map for addresses like this one.
func family(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// loopback is what the kernel redirects a namespace's own packets to.
func loopback(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// natMap is a map of the table that translates.
func natMap(name string, a netip.Addr) string { return NATTable + " " + name + family(a) }

// frontTable is where a front is looked up.
func (n *Namespace) frontTable(f lb.Front) string {
	switch {
	case n.Balancer == "ipvs":
		return "ipvs"
	case f.Protocol == lb.Any:
		return LBTable + " any" + family(f.Addr)
	}
	return LBTable + " port" + family(f.Addr)
}

// hideTable is where balanced flows are masqueraded.
func (n *Namespace) hideTable() string {
	if n.Balancer == "ipvs" {
		return IPVSTable + " masquerade"
	}
	return LBTable + " postrouting"
}

// String is the route as people write it.
func (r Route) String() string {
	if r.Via.IsValid() {
		return r.Dest.String() + " via " + r.Via.String() + " dev " + r.Link
	}
	return r.Dest.String() + " dev " + r.Link
}

// owns says whether the address is one of the namespace's own.
func (n *Namespace) owns(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	for _, i := range n.Interfaces {
		for _, p := range i.Addrs {
			if p.Addr() == a {
				return true
			}
		}
	}
	return false
}

// route returns the most specific route to an address, those that addresses
// bring included.
func (n *Namespace) route(to netip.Addr) (link Interface, best Route, ok bool) {
	for _, i := range n.Interfaces {
		for _, p := range i.Addrs {
			if p.Contains(to) && (!ok || p.Bits() > best.Dest.Bits()) {
				link, best, ok = i, Route{Dest: p.Masked(), Link: i.Name}, true
			}
		}
	}
	for _, r := range n.Routes {
		if !r.Dest.Contains(to) || ok && r.Dest.Bits() <= best.Dest.Bits() {
			continue
		}
		for _, i := range n.Interfaces {
			if i.Name == r.Link {
				link, best, ok = i, r, true
			}
		}
	}
	return link, best, ok
}

// source is the address that the kernel gives a packet which leaves by the link:
// the one in the subnet of the next hop, else the link's first of the family.
func (n *Namespace) source(link Interface, r Route, to netip.Addr) netip.Addr {
	next := to
	if r.Via.IsValid() {
		next = r.Via
	}
	var first netip.Addr
	for _, p := range link.Addrs {
		if p.Addr().Is4() != to.Is4() {
			continue
		}
		if p.Contains(next) {
			return p.Addr()
		}
		if !first.IsValid() {
			first = p.Addr()
		}
	}
	return first
}

// network returns a network as a node forwards in it.
func (t *tracer) network(node, id string) (Network, bool) {
	for _, n := range t.world.Networks {
		if n.Node == node && n.ID == id {
			return n, true
		}
	}
	return Network{}, false
}

func (t *tracer) networkName(node, id string) string {
	if n, ok := t.network(node, id); ok && n.Name != "" {
		return n.Name
	}
	return id
}

// endpoint returns the namespace of a node that has the address in the network.
func (t *tracer) endpoint(node, network string, a netip.Addr) *Namespace {
	for i := range t.world.Namespaces {
		n := &t.world.Namespaces[i]
		if n.Node != node {
			continue
		}
		for _, link := range n.Interfaces {
			for _, p := range link.Addrs {
				if link.Network == network && p.Addr() == a {
					return n
				}
			}
		}
	}
	return nil
}
