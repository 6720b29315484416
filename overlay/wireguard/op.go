package wireguard

import (
	"fmt"
	"net/netip"
	"strings"
)

// Op is one step towards what is wished, inside the vault. Its string is the
// command of iproute2, wg(8) or sysctl that would do the same, for people; no
// private key is in it.
type Op interface {
	fmt.Stringer
	isOp()
}

// AddVault makes the namespace, DelVault takes its name away.
type (
	AddVault struct{ Path string }
	DelVault struct{ Path string }
)

// SetSysctl writes a kernel setting.
type SetSysctl struct{ Key, Value string }

// SetLoopback brings the loopback link up.
type SetLoopback struct{}

// SetAddr and DelAddr change the loopback link's addresses.
type (
	SetAddr struct{ Addr netip.Addr }
	DelAddr SetAddr
)

// AddDevice makes a device in the vault; its UDP socket is the node's own
// namespace's.
type AddDevice struct {
	Name string
	MTU  int
}

// SetDevice changes a device. A key ends all sessions of the device.
type SetDevice struct {
	Name    string
	MTU     int     // 0 leaves it
	Port    uint16  // 0 leaves it
	Private Private // the zero key leaves it
	Up      bool
}

// SetPeer makes or replaces a peer; an invalid Endpoint leaves the one it has.
type SetPeer struct {
	Device   string
	Key      Key
	Endpoint netip.AddrPort
	Addr     netip.Addr
	Active   bool
}

// DelPeer forgets a peer.
type DelPeer struct {
	Device string
	Key    Key
}

// DelLink deletes a device, or a link that has no business in the vault.
type DelLink struct{ Name string }

// SetRoute and DelRoute change the way to a tunnel address.
type (
	SetRoute struct{ Route }
	DelRoute SetRoute
)

func (AddVault) isOp()    {}
func (DelVault) isOp()    {}
func (SetSysctl) isOp()   {}
func (SetLoopback) isOp() {}
func (SetAddr) isOp()     {}
func (DelAddr) isOp()     {}
func (AddDevice) isOp()   {}
func (SetDevice) isOp()   {}
func (SetPeer) isOp()     {}
func (DelPeer) isOp()     {}
func (DelLink) isOp()     {}
func (SetRoute) isOp()    {}
func (DelRoute) isOp()    {}

func (o AddVault) String() string  { return "ip netns add " + o.Path }
func (o DelVault) String() string  { return "ip netns del " + o.Path }
func (o SetSysctl) String() string { return "sysctl -w " + o.Key + "=" + o.Value }
func (SetLoopback) String() string { return "ip link set lo up" }
func (o SetAddr) String() string   { return fmt.Sprintf("ip addr replace %s/32 dev lo", o.Addr) }
func (o DelAddr) String() string   { return fmt.Sprintf("ip addr del %s dev lo", o.Addr) }
func (o DelLink) String() string   { return "ip link del " + o.Name }

func (o AddDevice) String() string {
	return fmt.Sprintf("ip link add %s mtu %d type wireguard", o.Name, o.MTU)
}

func (o SetDevice) String() string {
	var words []string
	if o.Private != (Private{}) {
		words = append(words, fmt.Sprintf("wg set %s private-key %s", o.Name, hidden))
	}
	if o.Port != 0 {
		words = append(words, fmt.Sprintf("wg set %s listen-port %d", o.Name, o.Port))
	}
	if o.MTU != 0 {
		words = append(words, fmt.Sprintf("ip link set %s mtu %d", o.Name, o.MTU))
	}
	if o.Up {
		words = append(words, "ip link set "+o.Name+" up")
	}
	return strings.Join(words, " && ")
}

func (o SetPeer) String() string {
	words := []string{"wg set", o.Device, "peer", o.Key.String(), "allowed-ips", o.Addr.String() + "/32"}
	if o.Endpoint.IsValid() {
		words = append(words, "endpoint", o.Endpoint.String())
	}
	keepalive := "off"
	if o.Active {
		keepalive = fmt.Sprint(Keepalive)
	}
	return strings.Join(append(words, "persistent-keepalive", keepalive), " ")
}

func (o DelPeer) String() string  { return fmt.Sprintf("wg set %s peer %s remove", o.Device, o.Key) }
func (o SetRoute) String() string { return fmt.Sprintf("ip route replace %s dev %s", o.Addr, o.Device) }
func (o DelRoute) String() string { return fmt.Sprintf("ip route del %s dev %s", o.Addr, o.Device) }
