package alloc

import (
	"net/netip"
	"time"

	"github.com/moby/moby/api/types/swarm"
)

// pool gives the addresses of one subnet.
type pool struct {
	subnet netip.Prefix
	// first and last bound what is given.
	first, last netip.Addr
	gateway     netip.Addr
	// reserved are addresses that their network's owner keeps for something else.
	reserved map[netip.Addr]bool
	// cursor is the address given last.
	cursor netip.Addr
	// youngest is the age of what the cursor was resumed from.
	youngest time.Time
}

// newPool makes the pool of an allocated IPAM configuration, without what is
// reserved of it.
func newPool(c swarm.IPAMConfig, reserved map[string]netip.Addr) *pool {
	p := &pool{subnet: c.Subnet.Masked(), gateway: c.Gateway, reserved: map[netip.Addr]bool{}}
	for _, addr := range reserved {
		if p.subnet.Contains(addr) {
			p.reserved[addr] = true
		}
	}
	// The subnet's own address names it, and IPv4's last is its broadcast.
	p.first, p.last = p.subnet.Addr().Next(), last(p.subnet)
	if p.subnet.Addr().Is4() {
		p.last = p.last.Prev()
	}
	if c.Range.IsValid() {
		r := c.Range.Masked()
		if p.first.Less(r.Addr()) {
			p.first = r.Addr()
		}
		if last(r).Less(p.last) {
			p.last = last(r)
		}
	}
	return p
}

// six says whether the pool is of IPv6 addresses.
func (p *pool) six() bool { return p.subnet.Addr().Is6() }

// last returns the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

func (p *pool) contains(a netip.Addr) bool {
	return p.first.IsValid() && p.last.IsValid() && !a.Less(p.first) && !p.last.Less(a)
}

// next returns the next free address after the one given last. Each try but one
// meets an address in use, a reserved one or the gateway, which bounds the search.
func (p *pool) next(used map[netip.Addr]int) (netip.Addr, bool) {
	at := p.cursor
	for range len(used) + len(p.reserved) + 2 {
		if at.IsValid() {
			at = at.Next()
		}
		if !at.IsValid() || !p.contains(at) {
			at = p.first
		}
		if !p.contains(at) {
			break
		}
		if used[at] == 0 && at != p.gateway && !p.reserved[at] {
			p.cursor = at
			return at, true
		}
	}
	return netip.Addr{}, false
}

// resume makes next go on after addr if that is the youngest known; of those of
// one age, after the highest.
func (p *pool) resume(addr netip.Addr, age time.Time) {
	same := age.Equal(p.youngest) && p.cursor.Less(addr)
	if p.contains(addr) && (same || age.After(p.youngest)) {
		p.cursor, p.youngest = addr, age
	}
}
