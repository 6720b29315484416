package plan

import (
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/overlay/endpoint"
)

// The prefixes of what is the node's own affair, out of one unique local /48
// (RFC 4193) that no cluster's networks are cut from. The gateway's and the
// mesh's link's are the same on every node; the balancers' holds one address of
// each node. They are not link-local, since those mean nothing beside their link.
var (
	// GatewayPrefix6 is the gateway bridge's IPv6 address.
	GatewayPrefix6  = netip.MustParsePrefix("fd53:686f:616c:1::1/64")
	balancerPrefix6 = netip.MustParsePrefix("fd53:686f:616c:2::/64")
	meshHost6       = netip.MustParsePrefix("fd53:686f:616c:3::1/126")
	meshPeer6       = netip.MustParsePrefix("fd53:686f:616c:3::2/126")
)

// returnVia6 is what returnVia is for IPv4: node numbers end before 65535, and
// number 0 would be the address that routers of the subnet share (RFC 4291 2.6.1).
var returnVia6 = embed(balancerPrefix6, 0xffff)

// everywhere6 is the destination of an IPv6 default route.
var everywhere6 = netip.MustParsePrefix("::/0")

// embed returns the address of the prefix that ends in the number.
func embed(p netip.Prefix, number uint32) netip.Addr {
	b := p.Masked().Addr().As16()
	b[12], b[13], b[14], b[15] = byte(number>>24), byte(number>>16), byte(number>>8), byte(number)
	return netip.AddrFrom16(b)
}

// BalancerAddrs are the ingress addresses of the node with that number, IPv4 first.
func BalancerAddrs(number uint32) []netip.Prefix {
	return []netip.Prefix{BalancerAddr(number), netip.PrefixFrom(embed(balancerPrefix6, number), balancerPrefix6.Bits())}
}

// Gateway6 is the IPv6 address on the gateway bridge of a task that has this IPv4
// address there: nobody needs to keep a list of them.
func Gateway6(gateway netip.Prefix) netip.Prefix {
	if !gateway.IsValid() {
		return netip.Prefix{}
	}
	b := gateway.Addr().As4()
	number := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	return netip.PrefixFrom(embed(GatewayPrefix6, number), GatewayPrefix6.Bits())
}

// gateways are the task's addresses on the gateway bridge, IPv4 first.
func (c *compiler) gateways(l Local) []netip.Prefix {
	switch {
	case !l.Gateway.IsValid():
		return nil
	case c.in.Self.routes6():
		return []netip.Prefix{l.Gateway, Gateway6(l.Gateway)}
	}
	return []netip.Prefix{l.Gateway}
}

// routes6 says whether the node's own namespace carries IPv6 for its tasks.
func (s Self) routes6() bool { return s.NoIPv6 == "" && s.NoIPv6Outside == "" }

// has6 says whether a network has IPv6 addresses.
func has6(n *api.Network) bool {
	return n != nil && slices.ContainsFunc(subnets(n), func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// has4 says whether a network has IPv4 addresses.
func has4(n *api.Network) bool {
	return n != nil && slices.ContainsFunc(subnets(n), func(p netip.Prefix) bool { return p.Addr().Is4() })
}

// Addresses are those of an attachment that a node can give to a task.
func (s Self) Addresses(of []netip.Prefix) []netip.Prefix {
	if s.NoIPv6 == "" {
		return of
	}
	return only4(of, netip.Prefix.Addr)
}

// Wires says why the node cannot give a task what all of its networks are there
// for: those of IPv6 alone need a kernel that has it.
func (s Self) Wires(t *api.Task) error {
	for _, a := range t.NetworksAttachments {
		if len(a.Addresses) > 0 && len(s.Addresses(a.Addresses)) == 0 {
			return api.Errorf(api.Unavailable, "network %s has IPv6 addresses only, and node %s gives tasks none: %s", a.Network.Spec.Name, s.ID, s.NoIPv6)
		}
	}
	return nil
}

// MeshAttachment is where the node's own end of the routing mesh answers.
func (s Self) MeshAttachment(ingress *api.Network) endpoint.Attachment {
	addrs := BalancerAddrs(s.Number)
	if !has6(ingress) || s.NoIPv6 != "" {
		addrs = addrs[:1]
	}
	out := endpoint.Attachment{NetworkID: ingress.ID, MAC: MAC(addrs[0].Addr())}
	for _, p := range addrs {
		out.Addrs = append(out.Addrs, p.Addr())
	}
	return out
}

func only4[T any](list []T, addr func(T) netip.Addr) []T {
	return slices.DeleteFunc(slices.Clone(list), func(x T) bool { return !addr(x).Is4() })
}

// withoutIPv6 is the input as a node sees it whose kernel has no IPv6: what it
// could not carry out, and would only fail at, is not there.
func withoutIPv6(in Input) Input {
	in.Networks = slices.Clone(in.Networks)
	for i, n := range in.Networks {
		if has6(n) {
			c := *n
			options := *n.IPAMOptions
			options.Configs = only4(options.Configs, func(c swarm.IPAMConfig) netip.Addr { return c.Subnet.Addr() })
			c.IPAMOptions = &options
			in.Networks[i] = &c
		}
	}
	in.Services = slices.Clone(in.Services)
	for i, s := range in.Services {
		c := *s
		c.Endpoint.VirtualIPs = only4(s.Endpoint.VirtualIPs, func(v swarm.EndpointVirtualIP) netip.Addr { return v.Addr.Addr() })
		in.Services[i] = &c
	}
	in.Records = slices.Clone(in.Records)
	for i := range in.Records {
		v := &in.Records[i].Value
		v.Attachments = slices.Clone(v.Attachments)
		for j := range v.Attachments {
			a := &v.Attachments[j]
			a.Addrs = only4(a.Addrs, func(a netip.Addr) netip.Addr { return a })
		}
		v.Attachments = slices.DeleteFunc(v.Attachments, func(a endpoint.Attachment) bool { return len(a.Addrs) == 0 })
	}
	return in
}
