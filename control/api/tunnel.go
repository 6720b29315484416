package api

import (
	"strconv"
	"time"

	"github.com/moby/moby/api/types/swarm"
)

// EncryptedOption is the driver option that asks for an encrypted network.
const EncryptedOption = "encrypted"

// WireGuard is the way to encrypt that nodes report in Capabilities.Encryption;
// MissingEncryption is its key in Capabilities.Missing.
const (
	WireGuard         = "wireguard"
	MissingEncryption = "encryption"
)

// KeyEpochs says which keys of the nodes' tunnels count. Every node has a key for
// each epoch from Floor to Current; there are at most two. All nodes take what
// comes under either, and send under the current one as soon as the other side
// is there.
type KeyEpochs struct {
	Current, Floor uint64
	// Since is when Current began.
	Since time.Time `json:"Since,omitzero"`
}

// Changing says whether keys of two epochs count.
func (e KeyEpochs) Changing() bool { return e.Floor < e.Current }

// Tunnel is what a node says of its encrypted tunnels.
type Tunnel struct {
	// Keys are the node's public keys, the oldest epoch first.
	Keys []TunnelKey `json:",omitempty"`
	// Settled is the epoch under which the node sends to every node that it
	// shares an encrypted network with.
	Settled uint64 `json:",omitempty"`
}

// TunnelKey is the public key that a node has for an epoch: 32 bytes, Curve25519.
type TunnelKey struct {
	Epoch  uint64
	Public []byte
}

// Key is the public key for an epoch, nil without one.
func (t Tunnel) Key(epoch uint64) []byte {
	for _, k := range t.Keys {
		if k.Epoch == epoch {
			return k.Public
		}
	}
	return nil
}

// maxTunnelKeys bounds the keys of one report.
const maxTunnelKeys = 2

// Check refuses what no node can mean.
func (t Tunnel) Check() error {
	if len(t.Keys) > maxTunnelKeys {
		return Errorf(Invalid, "%d tunnel keys, at most %d count", len(t.Keys), maxTunnelKeys)
	}
	for _, k := range t.Keys {
		if len(k.Public) != 32 {
			return Errorf(Invalid, "the tunnel key of epoch %d has %d bytes, not 32", k.Epoch, len(k.Public))
		}
	}
	return nil
}

// Encrypts says whether the node can encrypt networks, and why not. A node that
// did not tell yet cannot: in doubt nothing is sent.
func (c Capabilities) Encrypts() (can bool, why string) {
	if len(c.Encryption) > 0 {
		return true, ""
	}
	if why = c.Missing[MissingEncryption]; why == "" {
		why = "the node has not told of its kernel yet"
	}
	return false, why
}

// Encrypted says whether the network's frames may not cross the underlay in the
// clear. The option counts unless it is set to something false.
func (n *Network) Encrypted() bool { return Encrypted(&n.Network) }

// Encrypted is Network.Encrypted of the network that a task carries with it.
func Encrypted(n *swarm.Network) bool {
	for _, d := range []*swarm.Driver{n.Spec.DriverConfiguration, &n.DriverState} {
		if d == nil {
			continue
		}
		if value, ok := d.Options[EncryptedOption]; ok {
			on, err := strconv.ParseBool(value)
			return on || err != nil
		}
	}
	return false
}
