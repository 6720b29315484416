package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"shoal/dataplane/lb"
)

// guarded returns the rule that drops a packet which comes into the namespace, and
// why; both are empty for what may come in.
func (w walk) guarded() (rule, reason string) {
	t := w.at.Translation
	inner := slices.Clone(t.Inner)
	for _, e := range t.Masquerade {
		inner = append(inner, lb.Inner{Prefix: e.Source, Link: e.Bridge})
	}
	for _, i := range inner {
		if i.Prefix.Contains(w.dst.Addr()) && w.in != i.Link {
			return i.String(), fmt.Sprintf("%s is an inner address of %s: only what comes by %s may be for it, and a published port is reached at the node's own addresses",
				w.dst.Addr(), w.at.where(), i.Link)
		}
	}
	m := t.Members
	if m == nil || w.proto != lb.UDP || w.dst.Port() != m.Port || !w.at.owns(w.dst.Addr()) {
		return "", ""
	}
	rule = fmt.Sprintf("members of %d/udp", m.Port)
	switch {
	case slices.Contains(t.Passing, w.in):
		return rule, fmt.Sprintf("%d/udp is the data path of %s, and no task may send to it", m.Port, w.at.where())
	case !slices.Contains(m.Addrs, w.src):
		return rule, fmt.Sprintf("%d/udp is the data path of %s, and only nodes of the cluster may send to it", m.Port, w.at.where())
	}
	return "", ""
}

// beside returns the link, part of no overlay network, that has the address: only
// there can other namespaces reach it without one.
func (n *Namespace) beside(a netip.Addr) (link string, ok bool) {
	for _, i := range n.Interfaces {
		for _, p := range i.Addrs {
			if i.Network == "" && p.Addr() == a {
				return i.Name, true
			}
		}
	}
	return "", false
}

// peered returns the link whose other end is in the namespace at path.
func (n *Namespace) peered(path string) string {
	for _, i := range n.Interfaces {
		if i.HasPeer && i.Peer == path {
			return i.Name
		}
	}
	return ""
}
