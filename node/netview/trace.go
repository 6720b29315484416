package netview

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/dataplane/trace"
	"shoal/dns/zone"
	"shoal/node/plan"
)

// Route is the answer to a trace: what was asked, how the name was understood,
// and every way the packet may take.
type Route struct {
	// Node is the name of the node that the packet starts at, or arrives at.
	Node     string
	From, To string
	// Protocol is "tcp", "udp", "sctp", or "ping".
	Protocol string
	// Name says what the destination's name gave, "" when it was an address.
	Name  string `json:",omitempty"`
	Paths []trace.Path
	// Notes say what could not be found out.
	Notes []string `json:",omitempty"`
	// Live is the one real packet, where it was asked for.
	Live *Live `json:",omitempty"`
}

// ping is the word for a packet without ports.
const ping = "ping"

// Trace answers where a packet goes. The query has from (a task by name, id or
// container id, a node, "host", "outside" or an outside address), to (name or
// address, with or without a port), protocol ("" for TCP with a port and a ping
// without), entry (the node that an
// outsider reaches) and live (to send a packet).
func (s *Sources) Trace(ctx context.Context, q url.Values) (Route, error) {
	o, err := s.origin(q)
	if err == nil && q.Has("live") {
		err = followable(o, q)
	}
	if err != nil {
		return Route{}, err
	}
	if o.node != s.NodeID {
		return s.traceElsewhere(ctx, o, q)
	}
	out := Route{Node: s.node(s.NodeID), From: q.Get("from"), To: q.Get("to")}
	p := trace.Packet{Node: out.Node, Arrives: o.outside, Src: o.addr}
	if o.task != nil {
		p.Namespace = o.task.Namespace
	}
	if p.Protocol, out.Protocol, err = protocol(q); err != nil {
		return out, err
	}
	var unknown *trace.Path
	if p.Dst, out.Name, unknown, err = s.destination(o, out.To); err != nil {
		return out, err
	}
	if unknown != nil {
		out.Paths = []trace.Path{*unknown}
		return out, nil
	}
	w := &walker{s: s, packet: p, parts: map[string]Part{}, mute: map[string]error{}}
	if err := w.walk(ctx); err != nil {
		return out, err
	}
	out.Paths, out.Notes = s.explain(ctx, o, w.paths), append(o.notes(), w.notes()...)
	if q.Has("live") {
		out.Live, err = s.follow(ctx, p, out.Paths)
	}
	return out, err
}

// traceElsewhere passes the question on to the node that can answer it.
func (s *Sources) traceElsewhere(ctx context.Context, o origin, q url.Values) (out Route, err error) {
	from := q.Get("from")
	switch {
	case q.Has(relayed):
		return out, api.Errorf(api.NotFound, "%s is not on this node any more but on %s: ask again", from, s.node(o.node))
	case s.Peers == nil:
		return out, api.Errorf(api.Unavailable, "%s, and this node cannot ask it", s.whither(o, from))
	}
	q = pass(q)
	if !o.outside && o.name == "" {
		q.Set("from", "host")
	}
	if o.outside {
		q.Set("entry", o.node)
	}
	if err := s.Peers.Get(ctx, o.node, "/shoal/trace", q, &out); err != nil {
		return out, api.Errorf(api.KindOf(err), "%s: %w", s.whither(o, from), err)
	}
	out.From = from
	return out, nil
}

// protocol reads what kind of packet it is.
func protocol(q url.Values) (lb.Protocol, string, error) {
	_, port := splitPort(q.Get("to"))
	switch p := q.Get("protocol"); {
	case p == "" && port == "", p == ping && port == "":
		return trace.Ping, ping, nil
	case p == "":
		return lb.TCP, string(lb.TCP), nil
	case p == ping:
		return "", "", api.Errorf(api.Invalid, "a ping goes to no port: leave out :%s", port)
	case p != "tcp" && p != "udp" && p != "sctp":
		return "", "", api.Errorf(api.Invalid, "protocol %q: choose tcp, udp, sctp or ping", p)
	case port == "":
		return "", "", api.Errorf(api.Invalid, "%s goes to a port: say which, as in %s:80", p, q.Get("to"))
	default:
		return lb.Protocol(p), p, nil
	}
}

// walker walks with what this node knows, then asks the nodes that the packet
// reaches what they do with it, and walks again.
type walker struct {
	s      *Sources
	packet trace.Packet
	paths  []trace.Path
	parts  map[string]Part
	mute   map[string]error // nodes that did not answer
}

// roundsMax bounds how often new nodes come into sight.
const roundsMax = 4

func (w *walker) walk(ctx context.Context) error {
	o, err := w.s.observe()
	if err != nil {
		return err
	}
	for range roundsMax {
		w.paths = trace.Trace(w.s.world(o, w.parts), w.packet)
		reached := w.reached()
		if len(reached) == 0 || w.s.Peers == nil {
			return nil
		}
		answers, errs := ask[Part](ctx, w.s.Peers, reached, "/shoal/part", nil)
		maps.Copy(w.parts, answers)
		maps.Copy(w.mute, errs)
	}
	return nil
}

// reached are the other nodes on the ways that were not asked yet.
func (w *walker) reached() []string {
	ids := map[string]bool{}
	for _, p := range w.paths {
		for _, h := range append(slices.Clip(p.Hops), trace.Hop{Where: p.At}) {
			name, _, _ := strings.Cut(h.Where, "/")
			id, err := w.s.nodeID(name)
			_, known := w.parts[id]
			if err == nil && id != w.s.NodeID && !known && w.mute[id] == nil {
				ids[id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

func (w *walker) notes() (out []string) {
	for _, id := range slices.Sorted(maps.Keys(w.mute)) {
		out = append(out, fmt.Sprintf("what %s does is taken from its endpoints, for it was not asked: %v", w.s.node(id), w.mute[id]))
	}
	return out
}

// destination reads an address or, as the sender's name server would, a name. A
// name without an answer ends the way before it begins.
func (s *Sources) destination(from origin, to string) (netip.AddrPort, string, *trace.Path, error) {
	host, portText := splitPort(to)
	port := uint64(0)
	if portText != "" {
		var err error
		if port, err = strconv.ParseUint(portText, 10, 16); err != nil || port == 0 {
			return netip.AddrPort{}, "", nil, api.Errorf(api.Invalid, "port %q is not a number from 1 to 65535", portText)
		}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(a.Unmap(), uint16(port)), "", nil, nil
	}
	if from.task == nil {
		id, err := s.nodeID(host)
		if err != nil || !s.Nodes[id].DataPathAddr.IsValid() {
			return netip.AddrPort{}, "", nil, api.Errorf(api.NotFound, "%q is no node: names of services are for tasks; give an address or a node's name", host)
		}
		a := s.Nodes[id].DataPathAddr
		return netip.AddrPortFrom(a, uint16(port)), fmt.Sprintf("node %s is at %s", host, a), nil, nil
	}
	a, note, reason := s.lookup(from.task, host)
	if reason != "" {
		at := s.node(s.NodeID) + "/" + from.name
		return netip.AddrPort{}, "", &trace.Path{Verdict: trace.NoName, Reason: reason, At: at, Hops: []trace.Hop{
			{Where: at, Table: "names", Rule: host, Result: "no address"},
		}}, nil
	}
	return netip.AddrPortFrom(a, uint16(port)), note, nil, nil
}

// lookup asks for a name as the task would. The reason says why there is no
// address.
func (s *Sources) lookup(from *plan.Local, name string) (a netip.Addr, note, reason string) {
	var networks, names []string
	for _, a := range from.Task.NetworksAttachments {
		networks = append(networks, a.Network.ID)
		if !a.Network.Spec.Ingress {
			names = append(names, s.network(a.Network.ID))
		}
	}
	addrs, known := zone.Build(s.Fabric.Wish().Zone).Addrs(networks, name)
	switch {
	case known && len(addrs) > 0:
		return addrs[0], fmt.Sprintf("name %s gives %v", name, addrs), ""
	case known:
		return a, "", fmt.Sprintf("%q has no address now: no task of it takes connections", name)
	}
	on := "on no overlay network"
	if len(names) > 0 {
		on = "on " + strings.Join(names, ", ")
	}
	for _, e := range s.Endpoints() {
		if e.Service != "" && (e.Service == name || e.Task == name) && !slices.Contains(names, e.Network) && !s.ingress(e.Network) {
			return a, "", fmt.Sprintf("%q is on network %s, but %s is %s", name, e.Network, plan.TaskName(from.Task), on)
		}
	}
	return a, "", fmt.Sprintf("%s is %s, and nothing there is called %q: its name server asks outside", plan.TaskName(from.Task), on, name)
}

// ingress says whether a network is the routing mesh's own.
func (s *Sources) ingress(name string) bool {
	for _, n := range s.Networks {
		if n.Spec.Name == name {
			return n.Spec.Ingress
		}
	}
	return false
}

// explain gives ways that end nowhere the reason that only the whole cluster's
// networks tell.
func (s *Sources) explain(ctx context.Context, from origin, paths []trace.Path) []trace.Path {
	on := map[string]bool{}
	if from.task != nil {
		for _, a := range from.task.Task.NetworksAttachments {
			on[s.network(a.Network.ID)] = true
		}
	}
	who := s.node(from.node)
	if from.outside {
		who = "a client outside"
	}
	if from.name != "" {
		who = from.name
	}
	for i := range paths {
		p := &paths[i]
		if svc := s.frontless(*p); svc != nil {
			p.Reason = s.whyNobody(ctx, svc)
		}
		if p.Verdict != trace.Left && p.Verdict != trace.NoRoute {
			continue
		}
		if owner, network := s.whose(p.Dst.Addr()); network != "" && !on[network] {
			p.Reason = fmt.Sprintf("%s is %s on network %s, and %s is not on that network", p.Dst.Addr(), owner, network, who)
		}
	}
	return paths
}

// whose says what an address of an overlay network belongs to.
func (s *Sources) whose(a netip.Addr) (owner, network string) {
	for _, e := range s.Endpoints() {
		if slices.Contains(e.Addrs, a) {
			return e.Task, e.Network
		}
	}
	for _, svc := range s.Services {
		for _, v := range svc.Endpoint.VirtualIPs {
			if v.Addr.Addr() == a {
				return "the virtual address of " + svc.Spec.Name, s.network(v.NetworkID)
			}
		}
	}
	for _, n := range s.Networks {
		if n.IPAMOptions == nil {
			continue
		}
		for _, c := range n.IPAMOptions.Configs {
			if c.Subnet.Contains(a) {
				return "an address that nobody has", n.Spec.Name
			}
		}
	}
	return "", ""
}

func mapKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
