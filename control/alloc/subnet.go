package alloc

import (
	"crypto/sha256"
	"net/netip"

	"shoal/control/api"
)

// Docker's default address pool and the size of the subnets made from it. IPv6
// subnets have the size that hosts of a link expect (RFC 4291 2.5.1).
var defaultPool = netip.MustParsePrefix("10.0.0.0/8")

const (
	defaultSubnetBits = 24
	subnetBits6       = 64
)

// Pool6 returns the prefix that a cluster's IPv6 subnets are cut from unless it
// was given others: a unique local /48 (RFC 4193) whose global ID is drawn from
// the cluster's own, so that every manager knows it and two clusters differ.
func Pool6(clusterID string) netip.Prefix {
	sum := sha256.Sum256([]byte("ipv6 pool of " + clusterID))
	addr := [16]byte{0: 0xfd}
	copy(addr[1:6], sum[:])
	return netip.PrefixFrom(netip.AddrFrom16(addr), 48)
}

// subnets gives subnets of one family and size out of address pools, in turn.
type subnets struct {
	pools []netip.Prefix
	bits  int
	// cursor is the subnet given last; invalid before the first.
	cursor netip.Prefix
}

// configure takes the pools from the cluster, which may be nil.
func (a *Allocator) configure(c *api.Cluster) {
	a.subnets.pools, a.subnets.bits = []netip.Prefix{defaultPool}, defaultSubnetBits
	a.subnets6.pools, a.subnets6.bits = []netip.Prefix{Pool6("")}, subnetBits6
	if c == nil {
		return
	}
	a.subnets6.pools[0] = Pool6(c.ID)
	var v4, v6 []netip.Prefix
	for _, p := range c.DefaultAddrPool {
		switch {
		case p.IsValid() && p.Addr().Is4():
			v4 = append(v4, p.Masked())
		case p.IsValid():
			v6 = append(v6, p.Masked())
		}
	}
	if len(v4) > 0 {
		a.subnets.pools = v4
	}
	if len(v6) > 0 {
		a.subnets6.pools = v6
	}
	if c.SubnetSize != 0 {
		a.subnets.bits = int(c.SubnetSize)
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
		"could not find an available, non-overlapping %s address pool among the defaults to assign to the network", s.family())
}

func (s *subnets) family() string {
	if s.pools[0].Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
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
	subnet := netip.PrefixFrom(end.Next(), s.bits).Masked()
	if subnet.Addr() != end.Next() {
		// A prefix smaller than a subnet ends inside one: the next is one further.
		next := last(subnet).Next()
		if !next.IsValid() {
			return netip.Prefix{}
		}
		subnet = netip.PrefixFrom(next, s.bits)
	}
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
