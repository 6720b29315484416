// Package trace answers where a packet goes, and why: it walks the desired state
// hop by hop, as the kernels that are programmed with it would, and names the
// rule or entry that decided each step.
//
// It reads a World, which is a plain description that the caller puts together
// from what the rooms desire; it never looks at a kernel, a socket or a clock.
package trace

import (
	"net/netip"

	"shoal/dataplane/lb"
)

// World is everything that takes part in forwarding, on as many nodes as are known.
type World struct {
	Namespaces []Namespace
	Networks   []Network
}

// Namespace is one network namespace of one node.
type Namespace struct {
	Node string
	// Path identifies the namespace on its node; "" is the node's own.
	Path string
	// Name is for people: the task's name, "ingress", or "" for the node's own.
	Name       string
	Interfaces []Interface
	Routes     []Route
	Balance    lb.Desired
	// Balancer is the driver's name, "nft" or "ipvs". IPVS passes pings over, and
	// the namespace answers those to its fronts itself.
	Balancer    string
	Translation lb.Translation
	// Listens are the ports processes listen on; nil means that they are not
	// known, and a packet that arrives is taken as delivered.
	Listens []Listen
}

// Interface is a link with its addresses.
type Interface struct {
	Name  string
	Addrs []netip.Prefix
	// Network is the ID of the overlay network the link is attached to, "" for
	// links that only the routes below speak of.
	Network string
	// Peer is where the other end of a point-to-point link is: the path of a
	// namespace of the same node. It is heeded only with HasPeer.
	Peer    string
	HasPeer bool
}

// Route sends a destination out of a link, by way of a gateway if one is given.
type Route struct {
	Dest netip.Prefix
	Link string
	Via  netip.Addr // zero: the destination itself is on the link
}

// Listen is a port a process listens on.
type Listen struct {
	Protocol lb.Protocol
	Port     uint16
	// Addr is the only address that the process takes; invalid for every one.
	Addr netip.Addr
}

// takes says whether a packet reaches the process.
func (l Listen) takes(dst netip.AddrPort, p lb.Protocol) bool {
	return l.Protocol == p && l.Port == dst.Port() && (!l.Addr.IsValid() || l.Addr == dst.Addr())
}

// Network is an overlay network as one node forwards in it.
type Network struct {
	ID, Name string
	Node     string
	VNI      uint32
	// Peers are the remote endpoints that the node has entries for.
	Peers []Peer
}

// Peer is the forwarding and the neighbour entry of a remote endpoint.
type Peer struct {
	Addr netip.Addr
	MAC  string
	// VTEP is the address of the peer's node, VTEPNode its name ("" if unknown).
	VTEP     netip.Addr
	VTEPNode string
}

// Ping is the protocol of a packet without ports: an echo request.
const Ping = lb.Any

// Packet is the first packet of a flow.
type Packet struct {
	// Node and Namespace are where it is sent, or for one from outside the
	// cluster, the node that it arrives at (Arrives true, Namespace "").
	Node, Namespace string
	Arrives         bool
	// Src may be zero: the namespace's own address is chosen, or the packet is
	// from anywhere outside.
	Src      netip.Addr
	Dst      netip.AddrPort
	Protocol lb.Protocol
}

// Hop is one decision.
type Hop struct {
	// Where is the node and namespace, as people write it: "n1/web.1".
	Where string
	// Table is where the decision is written down, as plain tools show it: a table
	// and map of nftables, "ipvs", "routes", a forwarding table, "sockets".
	Table string
	// Rule is what decided: a front, a forward, a route, a forwarding entry.
	Rule string
	// Result is what came of it.
	Result string
}

// Verdict is how the walk ended.
type Verdict string

// The verdicts.
const (
	Delivered Verdict = "delivered"
	Refused   Verdict = "refused"  // the client is told at once
	Dropped   Verdict = "dropped"  // the client waits in vain
	NoRoute   Verdict = "no route" // the sender's own kernel says so
	Left      Verdict = "left"     // the packet left the cluster
	NoName    Verdict = "no name"  // the sender's name server knows no address
	Unknown   Verdict = "unknown"  // the world that was given does not say
)

// Path is one possible way of the packet.
type Path struct {
	Hops    []Hop
	Verdict Verdict
	Reason  string
	// At is the namespace that the packet reached, as in Hop.Where, and Dst the
	// address it carries there; Src is the client that the receiver sees.
	At  string
	Src netip.Addr
	Dst netip.AddrPort
}
