package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/overlay/probe"
	"shoal/overlay/vxlan"
)

// ProbeNetwork is the id of the network by which nodes test the data path
// between them. It looks like any other to the kernel, and no task is on it.
const ProbeNetwork = "probe"

// probePrefix holds the nodes' addresses on it.
var probePrefix = netip.MustParsePrefix("169.254.192.0/18")

// ProbeAddr is the address of the node with that number on the probe network.
func ProbeAddr(number uint32) netip.Prefix {
	b := probePrefix.Addr().As4()
	host := uint32(b[2])<<8 + uint32(b[3]) + number
	b[2], b[3] = byte(host>>8), byte(host)
	return netip.PrefixFrom(netip.AddrFrom4(b), probePrefix.Bits())
}

// ProbeNamespace is where the node's end of the probe network is.
func (s Self) ProbeNamespace() string { return s.NamespacePath(ProbeNetwork) }

// probe is the probe network as the managers' list of nodes has it; a node that
// is alone has none.
func (c *compiler) probe() (n vxlan.Network, ok bool) {
	self := c.in.Self
	if !self.Probes || self.Number == 0 {
		return n, false
	}
	own := ProbeAddr(self.Number)
	n = vxlan.Network{
		ID: ProbeNetwork, Namespace: self.ProbeNamespace(), VNI: api.ProbeVNI, Local: self.VTEP, Port: self.Port,
		MTU: self.OverlayMTU(), Addrs: []netip.Prefix{own}, MAC: MAC(own.Addr()), SoftwareChecksums: self.SoftwareChecksums,
	}
	for _, node := range c.in.Nodes {
		if node.ID == self.ID || node.Number == 0 || !node.DataPathAddr.IsValid() {
			continue
		}
		addr := ProbeAddr(node.Number).Addr()
		n.Peers = append(n.Peers, vxlan.Peer{Addrs: []netip.Addr{addr}, MAC: MAC(addr), VTEP: node.DataPathAddr.Unmap()})
	}
	slices.SortFunc(n.Peers, func(a, b vxlan.Peer) int { return cmp.Compare(a.MAC, b.MAC) })
	return n, len(n.Peers) > 0
}

// ProbeTargets says where and whom the node tests: the nodes that the managers
// list and count as alive, but for those that are silent.
func ProbeTargets(self Self, nodes []*api.Node, silent func(nodeID string) bool) probe.Targets {
	t := probe.Targets{
		Namespace: self.ProbeNamespace(), Addr: ProbeAddr(self.Number).Addr(), MTU: self.OverlayMTU(), Overhead: self.MTU - self.OverlayMTU(),
		Port: self.Port, SoftwareChecksums: self.SoftwareChecksums,
	}
	for _, n := range nodes {
		away := n.ID == self.ID || n.Status.State == swarm.NodeStateDown || silent != nil && silent(n.ID)
		if !away && n.Number != 0 && n.DataPathAddr.IsValid() {
			t.Peers = append(t.Peers, probe.Peer{ID: n.ID, Name: cmp.Or(n.Description.Hostname, n.ID),
				Addr: ProbeAddr(n.Number).Addr(), VTEP: n.DataPathAddr.Unmap()})
		}
	}
	return t
}
