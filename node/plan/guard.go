package plan

import (
	"net/netip"
	"slices"

	"shoal/dataplane/lb"
	"shoal/overlay/vxlan"
)

// guard says what of the host's traffic people's own rules judge, which addresses
// are nobody's affair outside (the gateway bridge's are known by what is
// masqueraded; the mesh's link is the host's and the ingress namespace's), and who may
// send into the overlays: the nodes that the managers list, never those that
// gossip alone knows of. While the list is not known everybody may.
func (c *compiler) guard(t *lb.Translation) {
	t.Passing = []string{GatewayBridge}
	if c.ingress != nil {
		t.Passing = append(t.Passing, vxlan.BalancerPort(c.ingress.ID))
		slices.Sort(t.Passing)
		t.Inner = c.meshInner()
	}
	if !c.in.Self.VTEP.IsValid() || c.in.Self.Port == 0 {
		return
	}
	m := lb.Members{Port: c.in.Self.Port}
	if len(c.in.Nodes) == 0 {
		return
	}
	for _, n := range c.in.Nodes {
		addr := n.DataPathAddr
		if !addr.IsValid() { // it has not reported yet; the managers know where it comes from
			addr, _ = netip.ParseAddr(n.Status.Addr)
		}
		if addr.IsValid() {
			m.Addrs = append(m.Addrs, addr.Unmap())
		}
	}
	m.Addrs = append(m.Addrs, c.in.Self.VTEP.Unmap())
	slices.SortFunc(m.Addrs, netip.Addr.Compare)
	m.Addrs = slices.Compact(m.Addrs)
	t.Members = &m
}

// meshInner are the addresses of the link between the host and the ingress
// namespace. Published ports lead there from the node's own addresses; whoever
// could dial them there would get past the address that a port is published at.
func (c *compiler) meshInner() []lb.Inner {
	link := vxlan.BalancerPort(c.ingress.ID)
	out := []lb.Inner{{Prefix: meshHost.Masked(), Link: link}}
	if c.mesh6() {
		out = append(out, lb.Inner{Prefix: meshHost6.Masked(), Link: link})
	}
	return out
}
