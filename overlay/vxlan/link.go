package vxlan

import (
	"net/netip"
	"slices"
	"strconv"
)

// links makes and adjusts the wished links that are chosen.
func (p *planner) links(chosen func(*wished) bool) {
	for _, w := range p.wish.links {
		if !chosen(w) || p.hidden(w) {
			continue
		}
		have, ok := p.have[w.place]
		if !ok && w.inner != (place{}) && p.hidden(p.wish.byName[w.inner]) {
			continue
		}
		if !ok {
			have = p.create(w)
		}
		p.adjust(w, have)
	}
}

// create adds the operation that makes a link and returns how it starts out. A
// veth pair is made by its outer end, and a loopback by its namespace.
func (p *planner) create(w *wished) Link {
	start := Link{Kind: w.Kind}
	switch {
	case w.Kind == KindBridge:
		p.do(AddBridge{w.namespace, w.link})
	case w.Kind == KindVXLAN:
		p.do(AddVXLAN{w.namespace, w.link, w.MTU, w.Tunnel})
		start.MTU = w.MTU
	case w.inner != (place{}):
		inner := p.wish.byName[w.inner]
		p.do(AddVeth{w.namespace, w.link, w.MTU, inner.namespace, inner.link, inner.MAC})
		start.MTU = w.MTU
	case w.Kind == KindVeth:
		start.MTU, start.MAC = w.MTU, w.MAC
	}
	return start
}

// adjust brings a link from have to what is wished. A port gets its settings
// before it comes up, so that it never floods; routes and neighbours come
// after, since the kernel refuses or drops them on a link that is down.
func (p *planner) adjust(w *wished, have Link) {
	set := SetLink{Namespace: w.namespace, Name: w.link}
	if w.MTU != 0 && w.MTU != have.MTU {
		set.MTU = w.MTU
	}
	if w.MAC != "" && w.MAC != have.MAC {
		set.MAC = w.MAC
	}
	moved := w.Master != "" && w.Master != have.Master
	if moved {
		set.Master = w.Master
		have.Static = nil
	}
	p.setLink(set)
	if w.SoftwareChecksums && !have.SoftwareChecksums {
		p.do(SetSoftwareChecksums{w.namespace, w.link})
	}
	if w.Master != "" && (moved || w.Port != have.Port) {
		p.do(SetPort{w.namespace, w.link, w.Port})
	}
	p.addrs(w, have)
	if !have.Up {
		p.setLink(SetLink{Namespace: w.namespace, Name: w.link, Up: true})
	}
	if w.Kind == KindVXLAN {
		p.entries(w, have)
		return
	}
	for _, n := range w.Neighbors {
		if !slices.Contains(have.Neighbors, n) {
			p.do(SetNeighbor{w.namespace, w.link, n})
		}
	}
}

func (p *planner) setLink(set SetLink) {
	if set != (SetLink{Namespace: set.Namespace, Name: set.Name}) {
		p.do(set)
	}
}

// addrs changes a link's addresses. The loopback's are the kernel's.
func (p *planner) addrs(w *wished, have Link) {
	if w.Kind == KindLoopback {
		return
	}
	again := map[netip.Prefix]bool{} // subnets that lose all addresses first
	for _, addr := range slices.Backward(have.Addrs) {
		if slices.Contains(w.Addrs, addr) {
			continue
		}
		del := DelAddr{w.namespace, w.link, addr}
		if subnet := addr.Masked(); addr.Addr().Is4() && hasSubnet(w.Addrs, subnet) {
			again[subnet] = true
			p.do(del)
		} else {
			p.last = append(p.last, del)
		}
	}
	for _, addr := range w.Addrs {
		if again[addr.Masked()] || !slices.Contains(have.Addrs, addr) {
			p.do(SetAddr{w.namespace, w.link, addr})
		}
	}
	if len(again) > 0 {
		if p.rerouted == nil {
			p.rerouted = map[place]bool{}
		}
		p.rerouted[w.place] = true
	}
}

func hasSubnet(addrs []netip.Prefix, subnet netip.Prefix) bool {
	return slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Masked() == subnet })
}

// entries changes a vxlan link's tables, in O(entries).
func (p *planner) entries(w *wished, have Link) {
	at := w.place
	difference(w.Forward, have.Forward, func(f Forward) string { return f.MAC },
		func(f Forward) { p.do(SetForward{at.namespace, at.link, f}) },
		func(f Forward) { p.last = append(p.last, DelForward{at.namespace, at.link, f}) })
	difference(w.Static, have.Static, func(mac string) string { return mac },
		func(mac string) { p.do(SetStatic{at.namespace, at.link, mac}) },
		func(mac string) { p.last = append(p.last, DelStatic{at.namespace, at.link, mac}) })
	difference(w.Neighbors, have.Neighbors, func(n Neighbor) netip.Addr { return n.Addr },
		func(n Neighbor) { p.do(SetNeighbor{at.namespace, at.link, n}) },
		func(n Neighbor) { p.last = append(p.last, DelNeighbor{at.namespace, at.link, n}) })
}

// difference sets what is wanted and not there as it is, and deletes what is
// there under a key that is not wanted.
func difference[T comparable, K comparable](want, have []T, key func(T) K, set, del func(T)) {
	there := make(map[T]bool, len(have))
	for _, item := range have {
		there[item] = true
	}
	wanted := make(map[K]bool, len(want))
	for _, item := range want {
		wanted[key(item)] = true
		if !there[item] {
			set(item)
		}
	}
	for _, item := range have {
		if !wanted[key(item)] {
			del(item)
		}
	}
}

// in is what a namespace has once: a destination in a table.
func (h Hop) in(namespace string) place {
	return place{namespace, h.Dst.String() + " " + strconv.FormatUint(uint64(h.Table), 10)}
}

// rules changes policy routing rules.
func (p *planner) rules() {
	for _, s := range p.wish.spaces {
		have, named := p.actual.Namespaces[s.path]
		if !named && !p.fresh[s.path] {
			continue
		}
		for _, r := range s.rules {
			if !slices.Contains(have.Rules, r) {
				p.do(SetRule{s.path, r})
			}
		}
		for _, r := range have.Rules {
			if !slices.Contains(s.rules, r) {
				p.last = append(p.last, DelRule{s.path, r})
			}
		}
	}
}

// routes changes routes, namespace by namespace: setting a route replaces the
// one with the same destination in the same table, whichever link that goes through.
func (p *planner) routes() {
	wanted := map[place]bool{} // by namespace and destination
	for _, w := range p.wish.links {
		have := p.have[w.place].Routes
		if p.rerouted[w.place] || !p.have[w.place].Up {
			have = nil
		}
		for _, hop := range w.Routes {
			wanted[hop.in(w.namespace)] = true
			if !p.hidden(w) && !slices.Contains(have, hop) {
				p.do(SetRoute{w.namespace, w.link, hop})
			}
		}
	}
	for _, at := range p.sorted() {
		if p.wish.byName[at] == nil {
			continue
		}
		for _, hop := range p.have[at].Routes {
			if !wanted[hop.in(at.namespace)] {
				p.last = append(p.last, DelRoute{at.namespace, at.link, hop})
			}
		}
	}
}
