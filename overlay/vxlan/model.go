// Package vxlan decides which links, addresses, routes, forwarding entries and
// neighbours a node needs for its overlay networks. Plan is pure: it compares
// what is wished with what the kernel has and returns the operations that lead
// from one to the other, additions before removals.
//
// The shape on a node, for every network that a local task (or the mesh) uses:
//
//	task netns          overlay netns (one per network)           host netns
//	eth0 ---veth---> [ bridge br0 ]---vxlan VNI (static FDB,       UDP 4789 socket
//	                       |           static neighbours, no       of the vxlan stays
//	                       |           learning, ARP answered      here
//	                       |           from the neighbour table)
//	                 lb0 (only where the namespace balances: the ingress
//	                 network's own address and a veth to the host)
//
// Every task also has a leg on the node's gateway bridge (shoal_gw) in the host
// netns, which carries its default route.
//
// The package never touches the kernel; overlay/rtnl does.
package vxlan

import "net/netip"

// Desired is everything that should exist on the node. Namespaces are paths of
// bind-mounted network namespaces; the empty path is the node's own.
type Desired struct {
	// Gateway is nil while no task needs egress.
	Gateway   *Gateway
	Networks  []Network
	Sandboxes []Sandbox
}

// Gateway is the bridge that tasks reach the outside through.
type Gateway struct {
	Name  string         // link name, at most 15 bytes, starting with GatewayPrefix
	Addrs []netip.Prefix // the bridge's own addresses with prefix length, one of a family
	MTU   int            // bytes
	// Filtered says that frames bridged here pass the host's IP filters, which then
	// keep the tasks from each other. Ports isolated by the bridge itself would
	// lose what a forwarded port leads from one task to another, since such frames
	// are bridged too once their address is translated.
	Filtered bool
}

// Network is one overlay network on this node.
type Network struct {
	ID        string
	Namespace string // path of the overlay netns; rtnl creates it
	VNI       uint32 // 24 bits, RFC 7348
	// Underlay is the path of the namespace whose addresses and routes carry the
	// network's frames, "" for the node's own. It is there already.
	Underlay string `json:",omitempty"`
	// Local is the VTEP's own address there, Port the UDP port (4789).
	Local netip.Addr
	Port  uint16
	MTU   int // bytes, of the inner packets
	// Subnets are the network's subnets, the gateway address not assigned to anyone.
	Subnets []netip.Prefix
	// Addrs and MAC make the namespace itself an endpoint of the network, also
	// without a Balancer, which brings its own.
	Addrs []netip.Prefix
	MAC   string
	// SoftwareChecksums says that the tunnel must not leave checksums to the
	// machine's network card. Nothing ever switches that back.
	SoftwareChecksums bool
	// Balancer is set where the namespace itself is an endpoint: the ingress network.
	Balancer *Balancer
	// Peers are the remote endpoints: who answers at which VTEP.
	Peers []Peer
}

// Balancer makes an overlay netns an endpoint of its own network and joins it
// to the host by a veth pair, so that it can balance what the host sends it.
type Balancer struct {
	Addrs []netip.Prefix // on the bridge: the addresses replies come back to
	MAC   string
	// HostAddrs are the addresses of the host's end of the veth, PeerAddrs those of
	// the namespace's end, where the host sends published ports; one of a family.
	HostAddrs, PeerAddrs []netip.Prefix
}

// Peer is a remote endpoint: one forwarding entry and one neighbour per address.
type Peer struct {
	Addrs []netip.Addr
	MAC   string
	VTEP  netip.Addr
}

// Sandbox is a task's network namespace and the interfaces it must have.
type Sandbox struct {
	ID         string // task id
	Namespace  string // path; made by the agent before it is listed here, and again by Plan should it be gone
	Interfaces []Interface
	// Routes beyond those that addresses bring; at most one default per family
	// and table.
	Routes []Route
	// Rules send marked packets by another routing table than the main one.
	Rules []Rule
}

// Rule is a policy routing rule of IPv4, or with Six of IPv6: packets whose mark,
// less what Mask leaves out, is Mark are routed by Table.
type Rule struct {
	Mark, Mask uint32
	Table      uint32
	Six        bool `json:",omitempty"`
}

// Interface is one leg of a sandbox.
type Interface struct {
	Name string // eth0, eth1, … in the sandbox
	// NetworkID is the overlay network, "" for the gateway bridge.
	NetworkID string
	MAC       string
	Addrs     []netip.Prefix
	MTU       int
	// Neighbors are permanent ones of the leg, beside those that the task has.
	Neighbors []Neighbor
}

// Route is one route of a sandbox. Interface names the leg; Via may be invalid
// for a route on the link itself.
type Route struct {
	Dst       netip.Prefix
	Via       netip.Addr
	Interface string
	Table     uint32 // 0 for the main table
}
