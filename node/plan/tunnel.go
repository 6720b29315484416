package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"shoal/control/api"
	"shoal/overlay/wireguard"
)

// Tunnels is what the node has to encrypt networks with.
type Tunnels struct {
	// Missing says why the node cannot encrypt, "" when it can.
	Missing string
	// Own are the node's keys for the epochs that count, the oldest first.
	Own []OwnKey
	// Live has, by device, the peers that have proved lately to be there.
	Live map[string]map[wireguard.Key]bool
}

// OwnKey is the node's pair of keys for one epoch.
type OwnKey struct {
	Epoch   uint64
	Public  wireguard.Key
	Private wireguard.Private
}

// VaultPath is where the namespace of encrypted networks' sockets is mounted.
func (s Self) VaultPath() string { return filepath.Join(s.NamespaceDir, "vault") }

// encrypts says why the node cannot carry an encrypted network now, "" when it can.
func (c *compiler) encrypts() string {
	switch t := c.in.Tunnels; {
	case t.Missing != "":
		return t.Missing
	case len(t.Own) == 0:
		return "the managers have not begun to count keys"
	case !c.announced():
		return "the managers have not passed its keys on"
	}
	return ""
}

// announced says whether the others can know a key of this node: a session that
// is begun before they do is not answered, and not tried again for seconds. Where
// the managers' list does not have the node, nothing is known against it.
func (c *compiler) announced() bool {
	at := slices.IndexFunc(c.in.Nodes, func(n *api.Node) bool { return n.ID == c.in.Self.ID })
	return at < 0 || slices.ContainsFunc(c.in.Tunnels.Own, func(own OwnKey) bool {
		return slices.Equal(c.in.Nodes[at].Tunnel.Key(own.Epoch), own.Public[:])
	})
}

// encryptedMTU is what a packet inside an encrypted network may have, in bytes:
// the tunnels are IPv4 inside, whatever the data path is.
func (s Self) encryptedMTU() int { return s.tunnelMTU() - overhead4 }

// tunnelMTU is the MTU of the devices, in bytes.
func (s Self) tunnelMTU() int { return s.MTU - wireguard.Overhead(s.VTEP) }

// block notes the networks that the node would have to carry in the clear; they
// are not made.
func (c *compiler) block(n *api.Network) bool {
	if !n.Encrypted() {
		return false
	}
	why := c.encrypts()
	if why == "" {
		c.sealed = append(c.sealed, n)
		return false
	}
	if n == c.ingress {
		c.mesh = nil // nobody must be led to what is not there
	}
	c.blocked[n.ID] = fmt.Sprintf("network %s is encrypted, and this node cannot encrypt: %s", n.Spec.Name, why)
	return true
}

// vault is the wish for the namespace of encrypted networks' sockets, and the
// epoch under whose keys the node sends.
func (c *compiler) vault() (d wireguard.Desired, settled uint64) {
	if own := c.in.Tunnels.Own; len(own) > 0 {
		settled = own[len(own)-1].Epoch
	}
	if len(c.sealed) == 0 {
		return d, settled
	}
	d = wireguard.Desired{Namespace: c.in.Self.VaultPath(), Addr: wireguard.Addr(c.in.Self.Number), MTU: c.in.Self.tunnelMTU()}
	active := c.partners()
	for _, own := range c.in.Tunnels.Own {
		d.Devices = append(d.Devices, wireguard.Device{
			Name: wireguard.DeviceName(own.Epoch), Port: wireguard.Port(own.Epoch),
			Public: own.Public, Private: own.Private, Peers: c.peers(own, active),
		})
	}
	for _, n := range c.others {
		if !active[n.ID] {
			continue
		}
		device, late := c.way(d.Devices, wireguard.Addr(n.Number))
		if device == "" {
			continue
		}
		d.Routes = append(d.Routes, wireguard.Route{Addr: wireguard.Addr(n.Number), Device: device})
		if late {
			settled = c.in.Tunnels.Own[0].Epoch
		}
	}
	return d, settled
}

// partners are the nodes that have something on an encrypted network of this one,
// also those that the managers have given up: their tasks may go on.
func (c *compiler) partners() map[string]bool {
	active := map[string]bool{}
	for _, n := range c.sealed {
		for _, s := range c.remote[n.ID] {
			active[s.Owner] = true
		}
	}
	return active
}

// peers lists all nodes that have a key for the epoch: each may begin a session
// at any time. Of two nodes that claim one key the older has it.
func (c *compiler) peers(own OwnKey, active map[string]bool) (out []wireguard.Peer) {
	claimed := map[wireguard.Key]bool{own.Public: true}
	for _, n := range c.others {
		key, err := wireguard.KeyOf(n.Tunnel.Key(own.Epoch))
		if err != nil || claimed[key] || !n.DataPathAddr.IsValid() {
			continue
		}
		claimed[key] = true
		out = append(out, wireguard.Peer{
			Key: key, Endpoint: netip.AddrPortFrom(n.DataPathAddr, wireguard.Port(own.Epoch)),
			Addr: wireguard.Addr(n.Number), Active: active[n.ID],
		})
	}
	return out
}

// way chooses the device that leads to a node: the newest through which the node
// was heard, and where it was through none the newest that knows it. Late says
// that it is heard through an older one only.
func (c *compiler) way(devices []wireguard.Device, to netip.Addr) (device string, late bool) {
	heard := false
	for i, d := range slices.Backward(devices) {
		at := slices.IndexFunc(d.Peers, func(p wireguard.Peer) bool { return p.Addr == to })
		if at < 0 {
			continue
		}
		live := c.in.Tunnels.Live[d.Name][d.Peers[at].Key]
		if device == "" || live && !heard {
			device = d.Name
		}
		if live && !heard {
			heard, late = true, i < len(devices)-1
		}
	}
	return device, late
}

// indexNodes sorts the other nodes by number: the order in which they came.
func (c *compiler) indexNodes() {
	for _, n := range c.in.Nodes {
		if n.ID != c.in.Self.ID && n.Number != 0 {
			c.others = append(c.others, n)
			c.numbers[n.ID] = n.Number
		}
	}
	slices.SortFunc(c.others, func(a, b *api.Node) int { return cmp.Compare(a.Number, b.Number) })
}

// tunnelAddr is where a node is reached inside the tunnels, invalid while the
// managers have not told of it.
func (c *compiler) tunnelAddr(nodeID string) netip.Addr {
	if number := c.numbers[nodeID]; number != 0 {
		return wireguard.Addr(number)
	}
	return netip.Addr{}
}
