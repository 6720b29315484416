package vxlan

import (
	"maps"
	"slices"
)

// Plan returns the operations that lead from actual to desired, in an order in
// which each one's needs are met: first what is in the way of something new
// (a link of another kind under the same name, half of a veth pair, a vxlan
// link with the same VNI and port elsewhere), then additions (namespaces, bridges, tunnels with all
// their entries, and only then the legs of tasks, so that a task that has a link
// reaches everyone), then removals. Where nothing differs it returns nothing.
//
// A sandbox whose namespace has lost its name but still has its legs is left
// alone: processes live in it, and another namespace would not help them. So is
// what could not be read.
func Plan(desired Desired, actual Actual) []Op {
	p := &planner{wish: newWish(desired), have: map[place]Link{}, actual: actual, fresh: map[string]bool{}}
	for path, ns := range actual.Namespaces {
		for name, link := range ns.Links {
			p.have[place{path, name}] = link
		}
	}
	p.findTunnels()
	p.findLost()
	p.clear()
	p.findLegs()
	p.namespaces()
	p.links(func(w *wished) bool { return w.Kind != KindVeth })
	p.links(func(w *wished) bool { return w.Kind == KindVeth })
	p.routes()
	p.rules()
	p.removeLinks()
	p.removeNamespaces()
	return slices.Concat(p.first, p.ops, p.last)
}

// planner collects operations: first, ops (additions), last (removals).
type planner struct {
	wish   *wish
	actual Actual
	// have is what is there, less what first deletes; fresh marks namespaces
	// that do not exist yet.
	have  map[place]Link
	fresh map[string]bool
	// rerouted lists links whose routes the kernel drops during the plan.
	first, ops, last []Op
	rerouted         map[place]bool
	// tunnels are the vxlan links that are there, in a fixed order; legs marks the
	// namespaces that have an end of a veth pair; lost are the wished inner ends
	// whose outer ends are in a namespace that could not be read.
	tunnels []place
	legs    map[string]bool
	lost    map[place]bool
}

func (p *planner) findTunnels() {
	for _, at := range p.sorted() {
		if p.have[at].Kind == KindVXLAN {
			p.tunnels = append(p.tunnels, at)
		}
	}
}

func (p *planner) findLegs() {
	p.legs = map[string]bool{}
	for at, link := range p.have {
		if link.Kind == KindVeth {
			p.legs[at.namespace] = true
		}
	}
}

func (p *planner) findLost() {
	if len(p.actual.Unread) == 0 {
		return
	}
	p.lost = map[place]bool{}
	for _, w := range p.wish.links {
		if w.inner != (place{}) && p.unread(w.namespace) {
			p.lost[w.inner] = true
		}
	}
}

// unread says whether nothing is known of a namespace.
func (p *planner) unread(path string) bool { return p.actual.Unread[path] != nil }

func (p *planner) do(ops ...Op) { p.ops = append(p.ops, ops...) }

// clear deletes what is in the way.
func (p *planner) clear() {
	for _, w := range p.wish.links {
		if p.unread(w.namespace) || p.unread(w.inner.namespace) {
			continue
		}
		if have, ok := p.have[w.place]; ok && (have.Kind != w.Kind || have.Tunnel != w.Tunnel) {
			p.clearLink(w.place)
		}
		if w.inner != (place{}) && !p.paired(w) {
			p.clearLink(w.place)
			p.clearLink(w.inner)
		}
		if w.Kind == KindVXLAN {
			p.clearTunnels(w)
		}
	}
}

func (p *planner) clearLink(at place) {
	if _, ok := p.have[at]; ok {
		delete(p.have, at)
		p.first = append(p.first, DelLink{at.namespace, at.link})
	}
}

// paired says whether both ends of a veth pair exist and belong together, or
// the inner one is out of sight with its namespace's name.
func (p *planner) paired(w *wished) bool {
	outer, ok := p.have[w.place]
	if _, named := p.actual.Namespaces[w.inner.namespace]; ok && !named {
		return !p.overlay(w.inner.namespace)
	}
	inner, ok2 := p.have[w.inner]
	return ok && ok2 && inner.Kind == KindVeth && outer.PeerIndex == inner.Index && inner.PeerIndex == outer.Index
}

func (p *planner) overlay(path string) bool {
	return slices.ContainsFunc(p.wish.spaces, func(s space) bool { return s.path == path && s.overlay })
}

// clearTunnels deletes other vxlan links that hold the VNI on this node.
func (p *planner) clearTunnels(w *wished) {
	for _, at := range p.tunnels {
		have := p.have[at] // nothing where it is cleared already
		if at != w.place && have.Kind == KindVXLAN && have.Tunnel.VNI == w.Tunnel.VNI && have.Tunnel.Port == w.Tunnel.Port && have.Tunnel.Underlay == w.Tunnel.Underlay {
			p.clearLink(at)
		}
	}
}

// sorted returns the places of what is there, in a fixed order.
func (p *planner) sorted() []place {
	return slices.SortedFunc(maps.Keys(p.have), func(a, b place) int {
		return slices.Compare([]string{a.namespace, a.link}, []string{b.namespace, b.link})
	})
}

// namespaces makes missing namespaces and sets kernel settings.
func (p *planner) namespaces() {
	for _, s := range p.wish.spaces {
		if p.unread(s.path) {
			continue
		}
		ns, ok := p.actual.Namespaces[s.path]
		if !ok && s.path != "" {
			if !s.overlay && p.inUse(s.path) {
				continue
			}
			p.fresh[s.path] = true
			p.do(AddNamespace{s.path})
		}
		for _, set := range s.sysctls {
			value, exists := ns.Sysctls[set.Key]
			if p.fresh[s.path] || (exists && value != set.Value) {
				p.do(set)
			}
		}
		if s.path != "" && !s.overlay && !p.legs[s.path] {
			p.sandboxSettings(s.path)
		}
	}
}

func (p *planner) sandboxSettings(path string) {
	for _, w := range p.wish.links {
		if w.namespace == path && w.Kind == KindVeth {
			for _, set := range sandboxSysctls(path) {
				p.do(set)
			}
			return
		}
	}
}

// inUse says whether a namespace without a name is alive: a veth pair ends with
// either of its ends.
func (p *planner) inUse(path string) bool {
	for _, w := range p.wish.links {
		if _, ok := p.have[w.place]; ok && w.inner.namespace == path {
			return true
		}
	}
	return false
}

// hidden says whether a wished link is in a namespace that has no name but is
// in use, or that could not be read, or is missing with its other end in one; nothing
// can be done there.
func (p *planner) hidden(w *wished) bool {
	if _, there := p.have[w.place]; !there && p.lost[w.place] {
		return true
	}
	_, ok := p.actual.Namespaces[w.namespace]
	return w.namespace != "" && !ok && !p.fresh[w.namespace]
}

// removeLinks deletes what nobody wishes for.
func (p *planner) removeLinks() {
	for _, at := range p.sorted() {
		if p.wish.byName[at] == nil && p.have[at].Kind != KindLoopback && p.minds(at.namespace, p.have[at].Kind) {
			p.last = append(p.last, DelLink{at.namespace, at.link})
		}
	}
}

// minds says whether unwanted links of a namespace are ours to delete: not
// those of a sandbox that is no longer listed, which its owner deletes.
func (p *planner) minds(path, kind string) bool {
	if path == "" {
		return kind != KindVXLAN
	}
	return p.actual.Namespaces[path].Overlay ||
		slices.ContainsFunc(p.wish.spaces, func(s space) bool { return s.path == path })
}

func (p *planner) removeNamespaces() {
	for _, path := range slices.Sorted(maps.Keys(p.actual.Namespaces)) {
		wanted := slices.ContainsFunc(p.wish.spaces, func(s space) bool { return s.path == path })
		if p.actual.Namespaces[path].Overlay && !wanted {
			p.last = append(p.last, DelNamespace{path})
		}
	}
}

// PlanPeers is the part of Plan that follows endpoint changes: it compares one
// network's peers with the tables of its vxlan link, in O(peers), and changes
// nothing else. Where the link itself is missing or wrong Plan is needed.
func PlanPeers(n Network, tunnel Link) []Op {
	w := &wished{place: place{n.Namespace, TunnelName(n.VNI)}, Link: Link{Tunnel: Tunnel{Local: n.Local.Unmap()}}}
	peers(n, &w.Link)
	p := &planner{}
	p.entries(w, tunnel)
	return append(p.ops, p.last...)
}
