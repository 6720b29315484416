package plan

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"shoal/control/api"
	"shoal/overlay/vxlan"
	"shoal/overlay/wireguard"
)

// GatewayPrefix is the gateway bridge's own address; tasks get theirs from the
// same prefix, node by node.
var GatewayPrefix = netip.MustParsePrefix("172.18.0.1/16")

// GatewayBridge is the name of the bridge that tasks reach the outside through.
const GatewayBridge = "shoal_gw"

// balancerPrefix holds the address that each node's ingress namespace answers
// at: link-local, so that no address of the ingress subnet is spent on nodes.
var balancerPrefix = netip.MustParsePrefix("169.254.64.0/18")

// The link between the host and the ingress namespace of the same node. It is
// the node's own affair, every node uses the same pair.
var (
	meshHost = netip.MustParsePrefix("169.254.128.1/30")
	meshPeer = netip.MustParsePrefix("169.254.128.2/30")
)

// How a task answers clients of published ports that kept their address: replies
// carry a mark, its low 16 bits the end of the hardware address of the entry
// node's balancer; a rule sends them by a table of their own, through a gateway
// that does not exist, and on the link the mark's low bits become the end of the
// gateway's hardware address. IPVS's marks leave the top four bits clear or have
// only the highest set.
const (
	returnMark  = 0x50ea0000
	returnMask  = 0xffff0000
	returnTable = 8300
)

// returnVia is the address of node 0, which is nobody's.
var returnVia = BalancerAddr(0).Addr()

// balancerMAC is what the hardware addresses of all balancers begin with.
var balancerMAC = [4]byte{0x02, 0x42, balancerPrefix.Addr().As4()[0], balancerPrefix.Addr().As4()[1]}

// BalancerAddr is the ingress address of the node with that number.
func BalancerAddr(number uint32) netip.Prefix {
	b := balancerPrefix.Addr().As4()
	host := uint32(b[2])<<8 | uint32(b[3])
	host += number
	b[2], b[3] = byte(host>>8), byte(host)
	return netip.PrefixFrom(netip.AddrFrom4(b), balancerPrefix.Bits())
}

// MAC derives the hardware address of an endpoint from its first address:
// locally administered, and unique on a network because addresses are.
func MAC(addr netip.Addr) string {
	if addr.Is4() {
		a := addr.As4()
		return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
	}
	h := sha256.Sum256(addr.AsSlice())
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", h[0], h[1], h[2], h[3])
}

// NamespacePath is where the overlay namespace of a network is mounted.
func (s Self) NamespacePath(networkID string) string {
	return filepath.Join(s.NamespaceDir, api.NamespaceName(networkID))
}

func (c *compiler) overlay() vxlan.Desired {
	var d vxlan.Desired
	for _, n := range c.used {
		d.Networks = append(d.Networks, c.network(n))
	}
	if probe, ok := c.probe(); ok {
		d.Networks = append(d.Networks, probe)
	}
	for _, l := range c.in.Local {
		d.Sandboxes = append(d.Sandboxes, c.sandbox(l))
		if l.Gateway.IsValid() {
			d.Gateway = &vxlan.Gateway{Name: GatewayBridge, Addrs: []netip.Prefix{GatewayPrefix}, MTU: c.in.Self.GatewayMTU,
				Filtered: c.in.Self.BridgesFiltered}
		}
	}
	if d.Gateway != nil && c.in.Self.routes6() {
		d.Gateway.Addrs = append(d.Gateway.Addrs, GatewayPrefix6)
	}
	return d
}

func (c *compiler) network(n *api.Network) vxlan.Network {
	self := c.in.Self
	out := vxlan.Network{
		ID: n.ID, Namespace: self.NamespacePath(n.ID), VNI: n.VNI,
		Local: self.VTEP, Port: self.Port, MTU: self.networkMTU(n), Subnets: subnets(n),
		SoftwareChecksums: self.SoftwareChecksums,
	}
	if n.Encrypted() {
		out.Underlay, out.Local = self.VaultPath(), wireguard.Addr(self.Number)
	}
	if n == c.ingress {
		addrs := BalancerAddrs(self.Number)
		out.Balancer = &vxlan.Balancer{
			Addrs: addrs[:1], MAC: MAC(addrs[0].Addr()), HostAddrs: []netip.Prefix{meshHost}, PeerAddrs: []netip.Prefix{meshPeer},
		}
		if has6(n) {
			out.Balancer.Addrs = addrs
		}
		if c.mesh6() {
			out.Balancer.HostAddrs = append(out.Balancer.HostAddrs, meshHost6)
			out.Balancer.PeerAddrs = append(out.Balancer.PeerAddrs, meshPeer6)
		}
	}
	for _, r := range c.remote[n.ID] {
		vtep := r.Value.VTEP
		if n.Encrypted() {
			vtep = c.tunnelAddr(r.Owner)
		}
		if vtep.IsValid() {
			out.Peers = append(out.Peers, vxlan.Peer{Addrs: r.at.Addrs, MAC: r.at.MAC, VTEP: vtep})
		}
	}
	return out
}

func subnets(n *api.Network) []netip.Prefix {
	var out []netip.Prefix
	if n.IPAMOptions == nil {
		return nil
	}
	for _, cfg := range n.IPAMOptions.Configs {
		out = append(out, cfg.Subnet)
	}
	return out
}

// sandbox lists a task's legs: its networks in the order the managers gave,
// the gateway bridge last.
func (c *compiler) sandbox(l Local) vxlan.Sandbox {
	s := vxlan.Sandbox{ID: l.Task.ID, Namespace: l.Namespace}
	for _, a := range l.Task.NetworksAttachments {
		n, addrs := c.networks[a.Network.ID], c.in.Self.Addresses(a.Addresses)
		if n == nil || n.VNI == 0 || len(addrs) == 0 || c.blocked[n.ID] != "" {
			continue
		}
		leg := vxlan.Interface{
			Name: fmt.Sprintf("eth%d", len(s.Interfaces)), NetworkID: n.ID,
			MAC: MAC(addrs[0].Addr()), Addrs: addrs, MTU: c.in.Self.networkMTU(n),
		}
		if n == c.ingress {
			c.addReturn(&s, &leg, c.gateways(l))
		}
		s.Routes = append(s.Routes, elsewhere(n, leg)...)
		s.Interfaces = append(s.Interfaces, leg)
	}
	if gateways := c.gateways(l); len(gateways) > 0 {
		leg := vxlan.Interface{
			Name: fmt.Sprintf("eth%d", len(s.Interfaces)), MAC: MAC(l.Gateway.Addr()),
			Addrs: gateways, MTU: c.in.Self.GatewayMTU,
		}
		s.Interfaces = append(s.Interfaces, leg)
		s.Routes = append(s.Routes, vxlan.Route{Dst: everywhere, Via: GatewayPrefix.Addr(), Interface: leg.Name})
		if len(gateways) > 1 {
			s.Routes = append(s.Routes, vxlan.Route{Dst: everywhere6, Via: GatewayPrefix6.Addr(), Interface: leg.Name})
		}
	}
	return s
}

// elsewhere leads to the subnets of a network that the leg has no address in: all
// of them are one segment.
func elsewhere(n *api.Network, leg vxlan.Interface) (routes []vxlan.Route) {
	for _, subnet := range subnets(n) {
		inside := func(p netip.Prefix) bool { return subnet.Contains(p.Addr()) }
		family := func(p netip.Prefix) bool { return subnet.Addr().Is4() == p.Addr().Is4() }
		if !slices.ContainsFunc(leg.Addrs, inside) && slices.ContainsFunc(leg.Addrs, family) {
			routes = append(routes, vxlan.Route{Dst: subnet.Masked(), Interface: leg.Name})
		}
	}
	return routes
}

// everywhere is the destination of a default route.
var everywhere = netip.MustParsePrefix("0.0.0.0/0")

// backwards is the way back of replies of one family: through a gateway that does
// not exist, on the link that holds the balancers' prefix.
type backwards struct {
	six      bool
	prefix   netip.Prefix
	via      netip.Addr
	anywhere netip.Prefix
}

var (
	backwards4 = backwards{false, balancerPrefix, returnVia, everywhere}
	backwards6 = backwards{true, balancerPrefix6, returnVia6, everywhere6}
)

// addReturn leads marked replies out of the ingress leg, in each family that it
// has. A task without any way to the outside gets a default route there too, since
// the kernel looks for a route before a reply has its mark; the return path lets
// nothing else out.
func (c *compiler) addReturn(s *vxlan.Sandbox, leg *vxlan.Interface, gateways []netip.Prefix) {
	for _, way := range []backwards{backwards4, backwards6} {
		same := func(p netip.Prefix) bool { return p.Addr().Is6() == way.six }
		if !slices.ContainsFunc(leg.Addrs, same) {
			continue
		}
		s.Routes = append(s.Routes, vxlan.Route{Dst: way.prefix, Interface: leg.Name})
		if c.in.Self.HidesClients {
			continue
		}
		leg.Neighbors = append(leg.Neighbors, vxlan.Neighbor{Addr: way.via, MAC: MAC(returnVia)})
		s.Rules = append(s.Rules, vxlan.Rule{Mark: returnMark, Mask: returnMask, Table: returnTable, Six: way.six})
		s.Routes = append(s.Routes, vxlan.Route{Dst: way.anywhere, Via: way.via, Interface: leg.Name, Table: returnTable})
		if !slices.ContainsFunc(gateways, same) {
			s.Routes = append(s.Routes, vxlan.Route{Dst: way.anywhere, Via: way.via, Interface: leg.Name})
		}
	}
}
