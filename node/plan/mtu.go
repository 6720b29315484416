package plan

import "shoal/control/api"

// What a VXLAN frame adds to a packet, in bytes: the outer IP header (20, or 40
// of IPv6), UDP (8), VXLAN (8) and the inner Ethernet header (14), RFC 7348.
const (
	overhead4 = 20 + 8 + 8 + 14
	overhead6 = 40 + 8 + 8 + 14
)

// OverlayMTU is what a packet inside an overlay may have, in bytes, when it is
// to cross the data path whole.
func (s Self) OverlayMTU() int {
	if s.VTEP.Is4() || s.VTEP.Is4In6() {
		return s.MTU - overhead4
	}
	return s.MTU - overhead6
}

// networkMTU is the MTU of a network's interfaces: what its option says, or else
// what the data path can carry, but never less than IPv6 needs where it is used:
// what is too large then crosses the data path in fragments.
func (s Self) networkMTU(n *api.Network) int {
	mtu := n.MTU()
	switch {
	case mtu != 0:
	case n.Encrypted():
		mtu = s.encryptedMTU()
	default:
		mtu = s.OverlayMTU()
	}
	if has6(n) {
		mtu = max(mtu, api.MinMTUIPv6)
	}
	return mtu
}
