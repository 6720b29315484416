// Package wireguard decides what the node's vault must hold: the network
// namespace in which the VXLAN sockets of encrypted networks live, and whose
// only ways out are WireGuard devices. A frame of an encrypted network so has no
// way to the underlay but through a device that encrypts it, and one that comes
// from the underlay in the clear finds no socket that knows its network. That
// holds without any rule, while shoald is stopped, and between any two
// operations of the plan.
//
//	overlay netns            vault                              host netns
//	vx4097 (socket here ---> lo 169.254.0.N/32                UDP 7947, 7948:
//	 in the vault)           wg7 --- encrypted by keys of epoch 7 ---> sockets of
//	                         wg8 --- by keys of epoch 8 -------------> the devices
//
// Keys belong to epochs, which the managers count. While one follows another a
// node has two devices, takes what comes through either, and sends to each peer
// through the newer one that has been heard: a rotation loses nothing.
//
// Plan is pure. The package never touches the kernel; overlay/wglink does.
package wireguard

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"strconv"
)

// What WireGuard adds to a packet: the outer IP header, UDP (8), its own header
// (16) and the tag (16).
const (
	overhead4 = 20 + 8 + 16 + 16
	overhead6 = 40 + 8 + 16 + 16
)

// BasePort is the UDP port of the devices of even epochs; those of odd ones have
// the next.
const BasePort = 7947

// Keepalive is how often, in seconds, a device tells a peer that it is there:
// often enough for the state of firewalls and address translation on the way.
const Keepalive = 25

// devicePrefix starts the name of every device.
const devicePrefix = "wg"

// tunnelPrefix holds the nodes' addresses inside the tunnels: link-local, since
// nothing but the vault ever sees them.
var tunnelPrefix = netip.MustParsePrefix("169.254.0.0/18")

// Overhead is by how many bytes a packet grows on an underlay of the address's family.
func Overhead(underlay netip.Addr) int {
	if underlay.Unmap().Is4() {
		return overhead4
	}
	return overhead6
}

// Addr is the tunnel address of the node with that number, 1 to 16382.
func Addr(number uint32) netip.Addr {
	b := tunnelPrefix.Addr().As4()
	host := uint32(b[2])<<8 | uint32(b[3])
	host += number
	b[2], b[3] = byte(host>>8), byte(host)
	return netip.AddrFrom4(b)
}

// DeviceName is the name of an epoch's device.
func DeviceName(epoch uint64) string { return devicePrefix + strconv.FormatUint(epoch, 10) }

// Port is the UDP port of an epoch's device, on every node.
func Port(epoch uint64) uint16 { return BasePort + uint16(epoch%2) }

// Key is a public key of Curve25519.
type Key [32]byte

// KeyOf takes the bytes of a public key.
func KeyOf(raw []byte) (Key, error) {
	if len(raw) != len(Key{}) {
		return Key{}, errors.New("a WireGuard key has 32 bytes")
	}
	return Key(raw), nil
}

// String is the key as wg(8) prints it.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// MarshalText is String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Key) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return err
	}
	*k, err = KeyOf(raw)
	return err
}

// Desired is what the vault must hold. One without a Namespace wants no vault.
type Desired struct {
	Namespace string
	Addr      netip.Addr // the node's own tunnel address
	MTU       int        // bytes, of the devices
	Devices   []Device   // by epoch, at most two
	Routes    []Route
}

// Device is one WireGuard device.
type Device struct {
	Name    string
	Port    uint16 // UDP, in the node's own namespace
	Public  Key
	Private Private `json:"-"`
	Peers   []Peer
}

// Peer is another node, as one device sees it.
type Peer struct {
	Key      Key
	Endpoint netip.AddrPort // on the underlay
	Addr     netip.Addr     // the only tunnel address it may send from
	// Active says that the node shares an encrypted network with this one, so
	// that a session is kept up. Others may begin one at any time.
	Active bool
}

// Route says through which device a tunnel address is reached.
type Route struct {
	Addr   netip.Addr
	Device string
}

// Actual is what the kernel has.
type Actual struct {
	Exists   bool
	Sysctls  map[string]string
	Loopback bool         // the loopback link is up
	Addrs    []netip.Addr // of the loopback link, but 127/8 and ::1
	Devices  map[string]State
	// Others are links that have no business in the vault.
	Others []string
	Routes []Route
}

// State is a device as the kernel has it.
type State struct {
	MTU    int
	Up     bool
	Port   uint16
	Public Key // zero without a private key
	Peers  map[Key]PeerState
}

// PeerState is a peer as the kernel has it.
type PeerState struct {
	Endpoint  netip.AddrPort
	Allowed   []netip.Prefix
	Keepalive int // seconds, 0 for none
	// Live says that the peer has proved to be there lately.
	Live bool
}
