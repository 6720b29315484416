package vxlan

import (
	"fmt"
	"net/netip"
	"strings"
)

// Op is one step towards what is wished. Its string is the command of iproute2
// (or sysctl) that would do the same, for people. Set… operations replace what
// is there; Add… operations refuse it; a Del… of what is gone already succeeds,
// because the kernel itself takes things away together with others.
type Op interface {
	fmt.Stringer
	isOp()
}

// AddNamespace makes a namespace.
type AddNamespace struct{ Path string }

// DelNamespace takes a namespace's name away; Plan deletes its links before.
type DelNamespace struct{ Path string }

// SetSysctl writes a kernel setting. A key that the kernel does not have is
// passed over: it belongs to a module that is not loaded and so has no effect.
// Where the node itself begins to forward IPv6, its links that listen to router
// advertisements are told to go on with it (accept_ra 2): a router would not.
type SetSysctl struct{ Namespace, Key, Value string }

// AddBridge makes a bridge that does not snoop multicast (nothing there asks
// for groups, and neighbour discovery must pass).
type AddBridge struct{ Namespace, Name string }

// AddVXLAN makes a vxlan link in a namespace; its UDP socket is in the one that
// Tunnel.Underlay names.
type AddVXLAN struct {
	Namespace, Name string
	MTU             int
	Tunnel          Tunnel
}

// AddVeth makes both ends of a pair where they belong.
type AddVeth struct {
	Namespace, Name         string
	MTU                     int // of both ends; 0 leaves it to the kernel
	PeerNamespace, PeerName string
	PeerMAC                 string
}

// SetLink changes what is not zero. There is no way down.
type SetLink struct {
	Namespace, Name string
	MTU             int
	MAC             string
	Master          string
	Up              bool
}

// SetSoftwareChecksums makes a vxlan link fill in the checksums of what it carries.
type SetSoftwareChecksums struct{ Namespace, Name string }

// SetPort sets how the bridge treats a port.
type SetPort struct {
	Namespace, Name string
	Port            Port
}

// DelLink deletes a link, and with it the other end of a veth pair.
type DelLink struct{ Namespace, Name string }

// SetAddr and DelAddr change a link's addresses. The kernel drops further
// addresses of the same IPv4 subnet when the first of them is deleted.
type (
	SetAddr struct {
		Namespace, Link string
		Addr            netip.Prefix
	}
	DelAddr SetAddr
)

// SetRoute and DelRoute change routes; one destination has one route.
type (
	SetRoute struct {
		Namespace, Link string
		Hop             Hop
	}
	DelRoute SetRoute
)

// SetForward and DelForward change the forwarding table of a vxlan link.
type (
	SetForward struct {
		Namespace, Link string
		Forward         Forward
	}
	DelForward SetForward
)

// SetStatic and DelStatic change which hardware addresses a bridge sends to a port.
type (
	SetStatic struct{ Namespace, Link, MAC string }
	DelStatic SetStatic
)

// SetNeighbor and DelNeighbor change permanent neighbours.
type (
	SetNeighbor struct {
		Namespace, Link string
		Neighbor        Neighbor
	}
	DelNeighbor SetNeighbor
)

// SetRule and DelRule change policy routing rules.
type (
	SetRule struct {
		Namespace string
		Rule      Rule
	}
	DelRule SetRule
)

func (SetSoftwareChecksums) isOp() {}

func (SetRule) isOp()      {}
func (DelRule) isOp()      {}
func (AddNamespace) isOp() {}
func (DelNamespace) isOp() {}
func (SetSysctl) isOp()    {}
func (AddBridge) isOp()    {}
func (AddVXLAN) isOp()     {}
func (AddVeth) isOp()      {}
func (SetLink) isOp()      {}
func (SetPort) isOp()      {}
func (DelLink) isOp()      {}
func (SetAddr) isOp()      {}
func (DelAddr) isOp()      {}
func (SetRoute) isOp()     {}
func (DelRoute) isOp()     {}
func (SetForward) isOp()   {}
func (DelForward) isOp()   {}
func (SetStatic) isOp()    {}
func (DelStatic) isOp()    {}
func (SetNeighbor) isOp()  {}
func (DelNeighbor) isOp()  {}

// tool starts a command line in a namespace.
func tool(name, namespace string) string {
	if namespace == "" {
		return name
	}
	return "nsenter --net=" + namespace + " " + name
}

func line(words ...any) string { return strings.TrimSuffix(fmt.Sprintln(words...), "\n") }

func onOff(name string, on bool) string {
	if on {
		return name + " on"
	}
	return name + " off"
}

func (o AddNamespace) String() string { return line("ip netns add", o.Path) }
func (o DelNamespace) String() string { return line("ip netns del", o.Path) }

func (o SetSysctl) String() string {
	return line(tool("sysctl", o.Namespace), "-w", o.Key+"="+o.Value)
}

func (o AddBridge) String() string {
	return line(tool("ip", o.Namespace), "link add", o.Name, "type bridge mcast_snooping 0")
}

func (o AddVXLAN) String() string {
	t := o.Tunnel
	learning := "nolearning"
	if t.Learning {
		learning = "learning"
	}
	proxy := "noproxy"
	if t.Proxy {
		proxy = "proxy"
	}
	return line(tool("ip", t.Underlay), "link add", o.Name, "netns", o.Namespace, "mtu", o.MTU,
		"type vxlan id", t.VNI, "local", t.Local, "dstport", t.Port, learning, proxy)
}

func (o AddVeth) String() string {
	words := []any{tool("ip", o.Namespace), "link add", o.Name}
	if o.MTU > 0 {
		words = append(words, "mtu", o.MTU)
	}
	words = append(words, "type veth peer name", o.PeerName)
	if o.PeerMAC != "" {
		words = append(words, "address", o.PeerMAC)
	}
	if o.PeerNamespace != o.Namespace {
		words = append(words, "netns", o.PeerNamespace)
	}
	return line(words...)
}

func (o SetLink) String() string {
	words := []any{tool("ip", o.Namespace), "link set", o.Name}
	if o.MTU > 0 {
		words = append(words, "mtu", o.MTU)
	}
	if o.MAC != "" {
		words = append(words, "address", o.MAC)
	}
	if o.Master != "" {
		words = append(words, "master", o.Master)
	}
	if o.Up {
		words = append(words, "up")
	}
	return line(words...)
}

func (o SetSoftwareChecksums) String() string {
	return line(tool("ethtool", o.Namespace), "-K", o.Name, "tx off")
}

func (o SetPort) String() string {
	return line(tool("bridge", o.Namespace), "link set dev", o.Name, onOff("learning", o.Port.Learning),
		onOff("flood", o.Port.Flood), onOff("isolated", o.Port.Isolated), onOff("hairpin", o.Port.Hairpin))
}

func (o DelLink) String() string { return line(tool("ip", o.Namespace), "link del", o.Name) }

func (o SetAddr) String() string {
	return line(tool("ip", o.Namespace), "addr replace", o.Addr, "dev", o.Link)
}
func (o DelAddr) String() string {
	return line(tool("ip", o.Namespace), "addr del", o.Addr, "dev", o.Link)
}

func (o SetRoute) String() string { return routeLine("replace", o) }
func (o DelRoute) String() string { return routeLine("del", SetRoute(o)) }

func routeLine(verb string, o SetRoute) string {
	words := []any{tool("ip", o.Namespace), "route", verb, o.Hop.Dst}
	if o.Hop.Via.IsValid() {
		words = append(words, "via", o.Hop.Via)
	}
	words = append(words, "dev", o.Link)
	if o.Hop.Table != 0 {
		words = append(words, "table", o.Hop.Table)
	}
	return line(words...)
}

func (o SetRule) String() string { return ruleLine("add", o) }
func (o DelRule) String() string { return ruleLine("del", SetRule(o)) }

func ruleLine(verb string, o SetRule) string {
	ip := "ip"
	if o.Rule.Six {
		ip = "ip -6"
	}
	return line(tool(ip, o.Namespace), "rule", verb, "pref", RulePriority,
		"fwmark", fmt.Sprintf("%#x/%#x", o.Rule.Mark, o.Rule.Mask), "lookup", o.Rule.Table)
}

func (o SetForward) String() string {
	return line(tool("bridge", o.Namespace), "fdb replace", o.Forward.MAC, "dev", o.Link, "self dst", o.Forward.VTEP, "permanent")
}
func (o DelForward) String() string {
	return line(tool("bridge", o.Namespace), "fdb del", o.Forward.MAC, "dev", o.Link, "self dst", o.Forward.VTEP)
}
func (o SetStatic) String() string {
	return line(tool("bridge", o.Namespace), "fdb replace", o.MAC, "dev", o.Link, "master static")
}
func (o DelStatic) String() string {
	return line(tool("bridge", o.Namespace), "fdb del", o.MAC, "dev", o.Link, "master")
}
func (o SetNeighbor) String() string {
	return line(tool("ip", o.Namespace), "neigh replace", o.Neighbor.Addr, "lladdr", o.Neighbor.MAC, "dev", o.Link, "nud permanent")
}
func (o DelNeighbor) String() string {
	return line(tool("ip", o.Namespace), "neigh del", o.Neighbor.Addr, "dev", o.Link)
}
