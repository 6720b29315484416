package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"shoal/dataplane/lb"
)

// hopsMax bounds a walk: a loop in the desired state ends it.
const hopsMax = 64

// pathsMax bounds how many ways are followed where balancers stand in a row.
const pathsMax = 256

// Trace returns every way the packet may take: one, or where it is balanced one
// for each backend that may be chosen, in the order of the backends.
func Trace(w World, p Packet) []Path {
	t := &tracer{world: w}
	from := t.namespace(p.Node, p.Namespace)
	start := walk{src: p.Src, dst: p.Dst, proto: p.Protocol}
	if from == nil {
		t.end(start, Unknown, fmt.Sprintf("node %q has no namespace %q here", p.Node, p.Namespace))
		return t.paths
	}
	start.at = from
	if p.Arrives {
		t.arrive(start)
	} else {
		t.send(start)
	}
	return t.paths
}

type tracer struct {
	world World
	paths []Path
}

// walk is one packet on its way; it is copied where ways part.
type walk struct {
	at         *Namespace
	src        netip.Addr
	dst        netip.AddrPort
	proto      lb.Protocol
	in         string // the link it came into the namespace by; "" is one of the world outside
	hops       []Hop
	balanced   bool // chosen a backend for in this namespace
	masquerade bool // and replies must come back to it
	loopback   bool // sent to a loopback address and translated away from it
}

func (n *Namespace) where() string {
	switch {
	case n.Name != "":
		return n.Node + "/" + n.Name
	case n.Path != "":
		return n.Node + "/" + n.Path
	}
	return n.Node
}

// note returns the walk with one hop more.
func (w walk) note(table, rule, result string) walk {
	w.hops = append(slices.Clip(w.hops), Hop{Where: w.at.where(), Table: table, Rule: rule, Result: result})
	return w
}

// target is where the packet goes, with the port if it has one.
func (w walk) target() string {
	if w.proto == Ping {
		return w.dst.Addr().String()
	}
	return w.dst.String()
}

func (t *tracer) end(w walk, v Verdict, reason string) {
	if len(t.paths) >= pathsMax {
		return
	}
	p := Path{Hops: w.hops, Verdict: v, Reason: reason, Src: w.src, Dst: w.dst}
	if w.at != nil {
		p.At = w.at.where()
	}
	t.paths = append(t.paths, p)
}

func (t *tracer) namespace(node, path string) *Namespace {
	for i := range t.world.Namespaces {
		if n := &t.world.Namespaces[i]; n.Node == node && n.Path == path {
			return n
		}
	}
	return nil
}

// send is a packet that a process of the namespace sends: it needs a route
// first, then it is translated, then balanced.
func (t *tracer) send(w walk) {
	if !w.src.IsValid() && !w.at.owns(w.dst.Addr()) {
		link, route, ok := w.at.route(w.dst.Addr())
		if !ok {
			t.end(w.note(routes, "none", "to "+w.dst.Addr().String()), NoRoute, fmt.Sprintf("%s has no route to %s: it is on no network with it", w.at.where(), w.dst.Addr()))
			return
		}
		w.src = w.at.source(link, route, w.dst.Addr())
	} else if !w.src.IsValid() {
		w.src = w.dst.Addr()
	}
	for _, r := range w.at.Translation.Redirects {
		if r.Protocol == w.proto && r.From == w.dst {
			w = w.note(natMap("redirect", r.To.Addr()), fmt.Sprintf("redirect %s/%s", r.From, r.Protocol), "to "+r.To.String())
			w.dst = r.To
			break
		}
	}
	w.loopback = w.dst.Addr().IsLoopback()
	t.translate(w)
}

// arrive is a packet that comes into the namespace by a link.
func (t *tracer) arrive(w walk) {
	if len(w.hops) >= hopsMax {
		t.end(w, Dropped, "the desired state leads in a circle")
		return
	}
	if rule, reason := w.guarded(); reason != "" {
		t.end(w.note(NATTable+" guard", rule, "dropped"), Dropped, reason)
		return
	}
	t.translate(w)
}

// translate sends forwarded ports on, then lets the balancer have a look.
func (t *tracer) translate(w walk) {
	if w.at.owns(w.dst.Addr()) {
		for _, f := range w.at.Translation.Forwards {
			if f.Protocol == w.proto && f.Port == w.dst.Port() && f.TakenAt(w.dst.Addr()) && w.at.forwards(w.dst.Addr(), f.To.Addr()) {
				table := "forward"
				if f.At.IsValid() {
					table = "redirect"
				}
				w = w.note(natMap(table, f.To.Addr()), fmt.Sprintf("forward %d/%s%s", f.Port, f.Protocol, named(f.Name)), "to "+f.To.String())
				w.dst = f.To
				break
			}
		}
	}
	t.balance(w)
}

// forwards says whether a port that leads to one address is there at another: of
// the same family, and at ::1 only where no bridge is on the way.
func (n *Namespace) forwards(at, to netip.Addr) bool {
	if at != netip.IPv6Loopback() {
		return at.Is4() == to.Is4()
	}
	return to.Is6() && !slices.ContainsFunc(n.Translation.Masquerade, func(e lb.Egress) bool { return e.Source.Contains(to) })
}

// balance follows each backend that the front may choose.
func (t *tracer) balance(w walk) {
	s, ok := w.at.front(w.dst, w.proto)
	if !ok {
		t.forward(w)
		return
	}
	rule, table := "front "+s.Front.String()+named(s.Name), w.at.frontTable(s.Front)
	if w.proto == Ping && w.at.Balancer == "ipvs" {
		w = w.note(IPVSTable+" ping", rule, "answers pings itself")
		w.dst = netip.AddrPortFrom(loopback(w.dst.Addr()), 0)
		t.end(w, Delivered, "a ping reaches the front, and none of its tasks")
		return
	}
	eligible := s.Eligible()
	if len(eligible) == 0 {
		reason := fmt.Sprintf("service %s has no backend", s.Front)
		if n := len(s.Backends); n > 0 {
			reason = fmt.Sprintf("all %d backends of service %s are draining", n, s.Front)
		}
		t.end(w.note(table, rule, "no backend"), Refused, reason)
		return
	}
	for i, b := range eligible {
		next := w.note(table, rule, fmt.Sprintf("%s picks %s%s, %d of %d", algorithm(s), b, named(b.Task), i+1, len(eligible)))
		port := w.dst.Port()
		if b.Port != 0 {
			port = b.Port
		}
		next.dst = netip.AddrPortFrom(b.Addr, port)
		next.masquerade, next.balanced = hides(w.at.Balance, s, w.src), true
		t.forward(next)
	}
}

// hides says whether a balanced flow gets the namespace's own source.
func hides(d lb.Desired, s lb.Service, src netip.Addr) bool {
	return s.Masquerade || slices.ContainsFunc(d.MasqueradeFrom, func(p netip.Prefix) bool { return src.IsValid() && p.Contains(src) })
}

func algorithm(s lb.Service) lb.Algorithm {
	if s.Algorithm == "" {
		return lb.RoundRobin
	}
	return s.Algorithm
}

func named(name string) string {
	if name == "" {
		return ""
	}
	return " (" + name + ")"
}

// front returns the service of a destination: one port before every port.
func (n *Namespace) front(dst netip.AddrPort, p lb.Protocol) (lb.Service, bool) {
	var all lb.Service
	found := false
	for _, s := range n.Balance.Services {
		if s.Addr != dst.Addr() {
			continue
		}
		if s.Protocol == p && s.Port == dst.Port() && p != lb.Any {
			return s, true
		}
		if s.Protocol == lb.Any {
			all, found = s, true
		}
	}
	return all, found
}

// forward delivers, or finds the way out.
func (t *tracer) forward(w walk) {
	if w.at.owns(w.dst.Addr()) {
		t.deliver(w)
		return
	}
	link, route, ok := w.at.route(w.dst.Addr())
	if !ok {
		t.end(w.note(routes, "none", "to "+w.dst.Addr().String()), NoRoute, fmt.Sprintf("%s has no route to %s", w.at.where(), w.dst.Addr()))
		return
	}
	w = w.hide(link, route)
	next := w.dst.Addr()
	if route.Via.IsValid() {
		next = route.Via
	}
	if link.HasPeer {
		t.cross(w.note(routes, route.String(), "to the other end"), link)
		return
	}
	if link.Network == "" {
		t.outside(w, link, route, next)
		return
	}
	t.overlay(w, link, next)
}

// hide replaces the source where the namespace masquerades.
func (w walk) hide(link Interface, route Route) walk {
	why, table := "", NATTable+" postrouting"
	switch {
	case w.masquerade:
		why, table = "balanced here", w.at.hideTable()
	case w.loopback && !w.dst.Addr().IsLoopback():
		why = "loopback source"
	}
	for _, e := range w.at.Translation.Masquerade {
		if e.Source.Contains(w.src) && link.Name != e.Bridge {
			why = "egress of " + e.Source.String()
		}
	}
	own := w.at.source(link, route, w.dst.Addr())
	keeps := w.balanced && !w.masquerade && !(w.src.IsValid() && w.at.owns(w.src))
	w.masquerade, w.loopback, w.balanced = false, false, false
	if keeps && why == "" {
		source := "the client's source"
		if w.src.IsValid() {
			source = "source " + w.src.String()
		}
		return w.note("", source+" is kept", "the reply returns by "+w.at.Node)
	}
	if why == "" || !own.IsValid() || own == w.src {
		return w
	}
	from := w.src
	w.src = own
	if !from.IsValid() {
		return w.note(table, "masquerade: "+why, "source becomes "+own.String())
	}
	return w.note(table, "masquerade: "+why, fmt.Sprintf("source %s becomes %s", from, own))
}

func (t *tracer) deliver(w walk) {
	end := func(result string, v Verdict, reason string) {
		t.end(w.note("sockets", "local address", result), v, reason)
	}
	switch {
	case w.proto == Ping:
		end("answers pings", Delivered, "")
		return
	case w.at.Listens == nil || slices.ContainsFunc(w.at.Listens, func(l Listen) bool { return l.takes(w.dst, w.proto) }):
		end("delivered to "+w.dst.String(), Delivered, "")
		return
	}
	port := fmt.Sprintf("%d/%s", w.dst.Port(), w.proto)
	for _, l := range w.at.Listens {
		if l.Protocol == w.proto && l.Port == w.dst.Port() {
			end("nobody listens", Refused, fmt.Sprintf("in %s the process on %s listens at %s only, not at %s", w.at.where(), port, l.Addr, w.dst.Addr()))
			return
		}
	}
	reason := fmt.Sprintf("nothing listens on %s in %s", port, w.at.where())
	if w.at.Path == "" && w.at.Name == "" {
		reason += ", and no service publishes that port"
	}
	end("nobody listens", Refused, reason)
}

// cross takes a point-to-point link to another namespace of the node.
func (t *tracer) cross(w walk, link Interface) {
	far := t.namespace(w.at.Node, link.Peer)
	if far == nil {
		t.end(w, Unknown, fmt.Sprintf("the other end of %s is in no known namespace", link.Name))
		return
	}
	w.at, w.in = far, far.peered(w.at.Path)
	t.arrive(w)
}

// outside leaves by a link that is not part of an overlay network: to another
// namespace of the node that owns the next address, or away.
func (t *tracer) outside(w walk, link Interface, route Route, next netip.Addr) {
	for i := range t.world.Namespaces {
		n := &t.world.Namespaces[i]
		in, beside := n.beside(next)
		if n.Node == w.at.Node && n != w.at && n.Path != w.at.Path && beside {
			w = w.note(routes, route.String(), "to "+n.where())
			w.at, w.in = n, in
			t.arrive(w)
			return
		}
	}
	for i := range t.world.Namespaces {
		n := &t.world.Namespaces[i]
		in, beside := n.beside(next)
		if n.Path == "" && n.Node != w.at.Node && beside && w.at.Path == "" {
			w = w.note(routes, route.String(), "to node "+n.Node)
			w.at, w.in = n, in
			t.arrive(w)
			return
		}
	}
	t.end(w.note(routes, route.String(), "next is "+next.String()), Left, "nothing known has "+next.String())
}

// overlay is the network's bridge: a local endpoint, or the entry of a remote one.
func (t *tracer) overlay(w walk, link Interface, next netip.Addr) {
	node := w.at.Node
	if n := t.endpoint(node, link.Network, next); n != nil {
		w = w.note("bridge br0", "network "+t.networkName(node, link.Network), "local endpoint "+next.String())
		w.at, w.in = n, ""
		t.arrive(w)
		return
	}
	network, ok := t.network(node, link.Network)
	if !ok {
		t.end(w, Unknown, fmt.Sprintf("network %s is not set up on node %s", link.Network, node))
		return
	}
	at := slices.IndexFunc(network.Peers, func(p Peer) bool { return p.Addr == next })
	if at < 0 {
		t.end(w.note(fmt.Sprintf("fdb vx%d", network.VNI), "network "+t.networkName(node, link.Network), "no entry for "+next.String()), NoRoute,
			fmt.Sprintf("node %s knows no endpoint %s in network %s", node, next, t.networkName(node, link.Network)))
		return
	}
	peer := network.Peers[at]
	w = w.note(fmt.Sprintf("fdb vx%d", network.VNI), fmt.Sprintf("neighbour %s lladdr %s, fdb dst %s", peer.Addr, peer.MAC, peer.VTEP), fmt.Sprintf("VXLAN %d to %s%s", network.VNI, peer.VTEP, named(peer.VTEPNode)))
	far := t.endpoint(peer.VTEPNode, link.Network, next)
	if far == nil {
		t.end(w, Unknown, fmt.Sprintf("what node %s does with it is not known here", peer.VTEP))
		return
	}
	w.at, w.in = far, ""
	t.arrive(w)
}
