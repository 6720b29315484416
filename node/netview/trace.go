package netview

import (
	"fmt"
	"iter"
	"net"
	"net/netip"
	"net/url"
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
	From, To string
	// Name says what the destination's name gave, "" when it was an address.
	Name  string `json:",omitempty"`
	Paths []trace.Path
}

// Trace answers where a packet goes. The query has from (a task of this node,
// "host", or an outside address), to (name or address, with a port) and protocol.
func (s *Sources) Trace(q url.Values) (Route, error) {
	out := Route{From: q.Get("from"), To: q.Get("to")}
	p := trace.Packet{Node: s.node(s.NodeID), Protocol: lb.Protocol(q.Get("protocol"))}
	switch p.Protocol {
	case lb.TCP, lb.UDP, lb.SCTP:
	default:
		return out, api.Errorf(api.Invalid, "protocol %q: choose tcp, udp or sctp", p.Protocol)
	}
	task, err := s.sender(&p, out.From)
	if err != nil {
		return out, err
	}
	if p.Dst, out.Name, err = s.destination(task, out.To); err != nil {
		return out, err
	}
	o, err := s.observe()
	if err != nil {
		return out, err
	}
	out.Paths = trace.Trace(s.world(o), p)
	return out, nil
}

// sender reads where the packet comes from.
func (s *Sources) sender(p *trace.Packet, from string) (*plan.Local, error) {
	if from == "host" {
		return nil, nil
	}
	if a, err := netip.ParseAddr(from); err == nil {
		p.Arrives, p.Src = true, a
		return nil, nil
	}
	for _, l := range s.Fabric.Locals() {
		if name := plan.TaskName(l.Task); from == name || from == l.Task.ID || from == name+"."+l.Task.ID {
			p.Namespace = l.Namespace
			return &l, nil
		}
	}
	for _, e := range s.Endpoints() {
		if e.Task == from {
			return nil, api.Errorf(api.Invalid, "task %s is on node %s: ask that node's shoald", from, e.Node)
		}
	}
	return nil, api.Errorf(api.NotFound, "no task %q on this node: give a task (web.3), \"host\", or an address outside", from)
}

// destination reads an address or, as the sender's name server would, a name.
func (s *Sources) destination(from *plan.Local, to string) (netip.AddrPort, string, error) {
	host, portText, err := net.SplitHostPort(to)
	if err != nil {
		host, portText = to, ""
	}
	port := uint64(0)
	if portText != "" {
		if port, err = strconv.ParseUint(portText, 10, 16); err != nil {
			return netip.AddrPort{}, "", api.Errorf(api.Invalid, "port %q is not a number from 1 to 65535", portText)
		}
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return netip.AddrPortFrom(a, uint16(port)), "", nil
	}
	a, note, err := s.lookup(from, host)
	return netip.AddrPortFrom(a, uint16(port)), note, err
}

func (s *Sources) lookup(from *plan.Local, name string) (netip.Addr, string, error) {
	if from == nil {
		for _, n := range s.Nodes {
			if n.Description.Hostname == name && n.DataPathAddr.IsValid() {
				return n.DataPathAddr, fmt.Sprintf("node %s is at %s", name, n.DataPathAddr), nil
			}
		}
		return netip.Addr{}, "", api.Errorf(api.NotFound, "%q is no node: from outside a task, give an address or a node's name", name)
	}
	var networks, names []string
	for _, a := range from.Task.NetworksAttachments {
		networks, names = append(networks, a.Network.ID), append(names, s.network(a.Network.ID))
	}
	addrs, known := zone.Build(s.Fabric.Wish().Zone).Addrs(networks, name)
	switch {
	case !known:
		return netip.Addr{}, "", api.Errorf(api.NotFound, "nothing called %q on the networks of %s (%s): the task's name server would ask outside",
			name, plan.TaskName(from.Task), strings.Join(names, ", "))
	case len(addrs) == 0:
		return netip.Addr{}, "", api.Errorf(api.NotFound, "%q has no address now: no task of it takes connections", name)
	}
	return addrs[0], fmt.Sprintf("name %s gives %v", name, addrs), nil
}

func mapKeys[V any](m map[string]V) iter.Seq[string] {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
