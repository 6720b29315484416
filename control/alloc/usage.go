package alloc

import (
	"math"
	"net/netip"

	"shoal/control/api"
)

// UsageView is what Usage reads.
type UsageView interface {
	ServicesByNetwork(id string) []*api.Service
	TasksByNetwork(id string) []*api.Task
	Retired() []*api.Retired
}

// Usage is how much of a subnet is given away.
type Usage struct {
	Subnet netip.Prefix
	// InUse counts the addresses that nobody can be given: those of tasks and
	// virtual IPs, the gateway, reserved ones, the subnet's own and its broadcast
	// address, and those that wait for the nodes (Waiting). Free counts those that
	// can be given. Both end at 2⁶⁴−1.
	InUse, Free, Waiting uint64
}

// UsageOf returns the usage of each of the network's subnets, in their order.
func UsageOf(v UsageView, n *api.Network) []Usage {
	if n.IPAMOptions == nil {
		return nil
	}
	used, waiting := usedIn(v, n)
	var all []Usage
	for _, c := range n.IPAMOptions.Configs {
		p := newPool(c, n.Reserved)
		u := Usage{Subnet: p.subnet}
		taken := p.fixed()
		for addr := range used {
			if p.subnet.Contains(addr) {
				taken[addr] = true
			}
			if p.subnet.Contains(addr) && waiting[addr] {
				u.Waiting++
			}
		}
		size, more := p.size()
		u.InUse, u.Free = uint64(len(taken)), size
		for addr := range taken {
			if p.contains(addr) && !more {
				u.Free--
			}
		}
		all = append(all, u)
	}
	return all
}

func usedIn(v UsageView, n *api.Network) (used, waiting map[netip.Addr]bool) {
	used, waiting = map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, s := range v.ServicesByNetwork(n.ID) {
		for _, vip := range s.Endpoint.VirtualIPs {
			if vip.NetworkID == n.ID && vip.Addr.IsValid() {
				used[vip.Addr.Addr()] = true
			}
		}
	}
	for _, t := range v.TasksByNetwork(n.ID) {
		for _, h := range attached(t) {
			if h.network == n.ID {
				used[h.addr] = true
			}
		}
	}
	for _, r := range v.Retired() {
		for _, h := range r.Addresses {
			if h.NetworkID == n.ID {
				used[h.Addr], waiting[h.Addr] = true, true
			}
		}
	}
	return used, waiting
}

// fixed are the addresses of the subnet that are never given.
func (p *pool) fixed() map[netip.Addr]bool {
	fixed := map[netip.Addr]bool{p.subnet.Addr(): true}
	if p.subnet.Addr().Is4() {
		fixed[last(p.subnet)] = true
	}
	if p.gateway.IsValid() {
		fixed[p.gateway] = true
	}
	for addr := range p.reserved {
		fixed[addr] = true
	}
	return fixed
}

// size is how many addresses there are from the first that may be given to the
// last; more says that there are more than it can say.
func (p *pool) size() (size uint64, more bool) {
	if !p.contains(p.first) {
		return 0, false
	}
	first, last := p.first.As16(), p.last.As16()
	for i := range first { // big-endian subtraction, which may not fit
		size = size<<8 + uint64(last[i]) - uint64(first[i])
		if i < 8 && size != 0 {
			return math.MaxUint64, true
		}
	}
	return size + 1, false
}
