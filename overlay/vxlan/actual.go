package vxlan

import "net/netip"

// Kinds of links, as the kernel names them.
const (
	KindBridge   = "bridge"
	KindLoopback = "loopback"
	KindVeth     = "veth"
	KindVXLAN    = "vxlan"
)

// Actual is what the kernel has of what Shoal owns, by namespace path; the
// empty path is the node's own namespace. A path that is not a key names no
// namespace.
type Actual struct {
	Namespaces map[string]Namespace
	// Unread says why nothing is known of a namespace, by path; it is not among
	// Namespaces then, and Plan leaves it alone.
	Unread map[string]error `json:"-"`
}

// Namespace is the state of one network namespace.
type Namespace struct {
	// Overlay marks the namespace of an overlay network. Plan deletes one that
	// no network wants; it never deletes any other.
	Overlay bool
	// Links are the links that Shoal owns, by name, and the loopback.
	Links map[string]Link
	// Sysctls are the values of Sysctls(path kind) that the kernel has. A key
	// that is absent does not exist in this kernel, or was not asked for.
	Sysctls map[string]string `json:",omitempty"`
	// Rules are the policy routing rules that Shoal owns.
	Rules []Rule `json:",omitempty"`
}

// Link is one link of a namespace.
type Link struct {
	Kind string
	// Index is the link's own index, PeerIndex that of the other end of a veth
	// pair in the other end's namespace.
	Index     int
	PeerIndex int    `json:",omitempty"`
	Master    string `json:",omitempty"` // the bridge it is a port of
	MTU       int    // bytes
	MAC       string // lower case
	Up        bool   // administratively
	Tunnel    Tunnel `json:",omitzero"` // of a vxlan link
	// SoftwareChecksums says that a vxlan link leaves no checksum to the network card.
	SoftwareChecksums bool `json:",omitempty"`
	Port              Port `json:",omitzero"` // of a link with a master
	// Addrs are in the kernel's order: primary addresses first. IPv6
	// link-local addresses are the kernel's own affair and not listed.
	Addrs  []netip.Prefix `json:",omitempty"`
	Routes []Hop          `json:",omitempty"`
	// Forward is a vxlan link's own forwarding table.
	Forward []Forward `json:",omitempty"`
	// Static lists the hardware addresses that the bridge sends to this port.
	Static []string `json:",omitempty"`
	// Neighbors are the permanent ones; a vxlan link answers ARP and neighbour
	// solicitations from them.
	Neighbors []Neighbor `json:",omitempty"`
}

// Tunnel is what a vxlan link is made with and never changes.
type Tunnel struct {
	VNI uint32
	// Underlay is the namespace that holds the UDP socket, "" for the node's own;
	// UnderlayLost stands for one that is neither that nor known by a path.
	Underlay string `json:",omitempty"`
	Local    netip.Addr
	Port     uint16 // UDP
	Learning bool
	Proxy    bool
}

// UnderlayLost is the Underlay of a tunnel whose socket is in no known namespace.
const UnderlayLost = "?"

// Port is how a bridge treats one of its ports.
type Port struct {
	Learning bool // take hardware addresses from what arrives
	Flood    bool // send unicast for unknown hardware addresses here
	Isolated bool // exchange nothing with other isolated ports
	Hairpin  bool // send back what came from here when it is for here
}

// Hop is a route through a link; Via is invalid for a route on the link itself.
type Hop struct {
	Dst   netip.Prefix // masked
	Via   netip.Addr   `json:",omitzero"`
	Table uint32       `json:",omitempty"` // 0 is the main table
}

// Forward sends frames for a hardware address to a VTEP.
type Forward struct {
	MAC  string
	VTEP netip.Addr
}

// Neighbor is the hardware address of an address.
type Neighbor struct {
	Addr netip.Addr
	MAC  string
}
