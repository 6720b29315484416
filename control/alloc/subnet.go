package alloc

import (
	"encoding/binary"
	"net/netip"

	"shoal/control/api"
)

// Docker's default address pool and the size of the subnets made from it.
var defaultPool = netip.MustParsePrefix("10.0.0.0/8")

const defaultSubnetBits = 24

// subnets gives IPv4 subnets of one size out of address pools, in turn.
type subnets struct {
	pools []netip.Prefix
	bits  int
	// cursor is the subnet given last; invalid before the first.
	cursor netip.Prefix
}

// configure takes the pools from the cluster, which may be nil.
func (s *subnets) configure(c *api.Cluster) {
	s.pools, s.bits = []netip.Prefix{defaultPool}, defaultSubnetBits
	if c == nil {
		return
	}
	var v4 []netip.Prefix
	for _, p := range c.DefaultAddrPool {
		if p.IsValid() && p.Addr().Is4() {
			v4 = append(v4, p.Masked())
		}
	}
	if len(v4) > 0 {
		s.pools = v4
	}
	if c.SubnetSize != 0 {
		s.bits = int(c.SubnetSize)
	}
}

// resume makes next go on after a subnet that was given before.
func (s *subnets) resume(given netip.Prefix) {
	for _, p := range s.pools {
		if given.Bits() == s.bits && p.Overlaps(given) {
			s.cursor = given.Masked()
		}
	}
}

// next returns the next subnet after the one given last that overlaps nothing in
// busy. It jumps over what is busy, so that the search takes at most a step per
// busy prefix and pool.
func (s *subnets) next(busy []netip.Prefix) (netip.Prefix, error) {
	var at netip.Prefix
	start := 0
	for i, p := range s.pools {
		if s.cursor.IsValid() && p.Overlaps(s.cursor) {
			at, start = s.after(p, s.cursor), i
		}
	}
	if !at.IsValid() {
		at, start = s.head(s.pools[0]), 0
	}
	// One pool more than there are, for the part before the cursor.
	for i := range len(s.pools) + 1 {
		p := s.pools[(start+i)%len(s.pools)]
		if i > 0 || !at.IsValid() {
			at = s.head(p)
		}
		for at.IsValid() {
			hit := overlapping(busy, at)
			if !hit.IsValid() {
				s.cursor = at
				return at, nil
			}
			at = s.after(p, hit)
		}
	}
	return netip.Prefix{}, api.Errorf(api.Unavailable,
		"could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network")
}

// head returns the first subnet of a pool, invalid when the pool is too small.
func (s *subnets) head(p netip.Prefix) netip.Prefix {
	if p.Bits() > s.bits {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(p.Addr(), s.bits)
}

// after returns the first subnet of the pool beyond a prefix, invalid at its end.
func (s *subnets) after(p, beyond netip.Prefix) netip.Prefix {
	end := last(beyond)
	if !p.Contains(end) || !end.Next().IsValid() || !p.Contains(end.Next()) {
		return netip.Prefix{}
	}
	// A prefix smaller than a subnet ends inside one: the next is one further.
	size := uint32(1) << (32 - s.bits)
	b := end.Next().As4()
	at := binary.BigEndian.Uint32(b[:])
	if rest := at % size; rest != 0 {
		up := at + size - rest
		if up < at {
			return netip.Prefix{}
		}
		at = up
	}
	binary.BigEndian.PutUint32(b[:], at)
	subnet := netip.PrefixFrom(netip.AddrFrom4(b), s.bits)
	if !p.Contains(subnet.Addr()) {
		return netip.Prefix{}
	}
	return subnet
}

// overlapping returns a prefix of the list that overlaps p, invalid without one.
func overlapping(list []netip.Prefix, p netip.Prefix) netip.Prefix {
	for _, other := range list {
		if other.Overlaps(p) {
			return other
		}
	}
	return netip.Prefix{}
}

// busy returns every prefix that a new subnet must keep clear of: the subnets of
// networks, of removed ones too, and the addresses of nodes. A network that names
// the subnet of a removed one gets it at once: they differ in everything else.
func (a *Allocator) busy() []netip.Prefix {
	var busy []netip.Prefix
	for _, n := range a.networks {
		for _, p := range n.pools {
			busy = append(busy, p.subnet)
		}
		if n.Network != nil && n.Spec.IPAMOptions != nil && len(n.pools) == 0 {
			for _, c := range n.Spec.IPAMOptions.Configs {
				if c.Subnet.IsValid() {
					busy = append(busy, c.Subnet.Masked())
				}
			}
		}
	}
	for _, r := range a.retired {
		if r.Network != nil {
			busy = append(busy, wishedOrGiven(r.Network)...)
		}
	}
	for _, addr := range a.underlay {
		busy = append(busy, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return busy
}

// checkSubnets refuses the subnets that a network wishes for if they are wrong
// in themselves or overlap those of another network.
func (a *Allocator) checkSubnets(n *api.Network) error {
	if err := checkConfigs(n); err != nil {
		return err
	}
	var taken []netip.Prefix
	for id, other := range a.networks {
		if id != n.ID {
			for _, p := range other.pools {
				taken = append(taken, p.subnet)
			}
		}
	}
	return checkOverlap(n, taken)
}
