package plan

import (
	"net/netip"
	"slices"

	"shoal/dataplane/lb"
	"shoal/overlay/vxlan"
)

// guard says what of the host's traffic people's own rules judge, and who may
// send into the overlays: the nodes that the managers list, never those that
// gossip alone knows of. While the list is not known everybody may.
func (c *compiler) guard(t *lb.Translation) {
	t.Passing = []string{GatewayBridge}
	if c.ingress != nil {
		t.Passing = append(t.Passing, vxlan.BalancerPort(c.ingress.ID))
		slices.Sort(t.Passing)
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
