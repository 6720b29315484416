package netview

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"shoal/overlay/wireguard"
)

// Tunnels is how the node encrypts networks.
type Tunnels struct {
	// Missing says why it cannot, "" when it can.
	Missing string
	// Epoch and Floor are the newest and the oldest keys that count in the cluster;
	// Settled is the epoch under which this node sends.
	Epoch, Floor, Settled uint64
	// Waiting lists the nodes that do not yet send under the newest keys.
	Waiting []string
	Devices []Device
}

// Device is one WireGuard device, as the kernel has it.
type Device struct {
	Name   string
	Port   uint16 // UDP
	Public wireguard.Key
	MTU    int // bytes
	Up     bool
	Peers  []TunnelPeer
}

// TunnelPeer is another node, as a device knows it.
type TunnelPeer struct {
	Node     string
	Public   wireguard.Key
	Addr     netip.Addr     // in the tunnel
	Endpoint netip.AddrPort // on the underlay, where it was heard last
	// Partner says that both nodes are on an encrypted network; Live that the node
	// was heard through the device lately; Sends that frames for it go through it.
	Partner, Live, Sends bool
}

// Tunnels reads the node's encrypted tunnels.
func (s *Sources) Tunnels(ctx context.Context) (Tunnels, error) {
	out := Tunnels{Missing: s.Unsealed, Epoch: s.Keys.Current, Floor: s.Keys.Floor, Settled: s.Fabric.Wish().Settled, Devices: []Device{}}
	if trouble := s.Fabric.Trouble(); trouble != nil {
		out.Missing = trouble.Error()
	}
	if s.Waiting != nil {
		out.Waiting = s.Waiting()
	}
	actual, err := s.Fabric.Vault(ctx)
	if err != nil {
		return out, err
	}
	names := map[netip.Addr]string{}
	for id, n := range s.Nodes {
		if n.Number != 0 {
			names[wireguard.Addr(n.Number)] = s.node(id)
		}
	}
	for name, state := range actual.Devices {
		d := Device{Name: name, Port: state.Port, Public: state.Public, MTU: state.MTU, Up: state.Up}
		for key, p := range state.Peers {
			peer := TunnelPeer{Public: key, Endpoint: p.Endpoint, Partner: p.Keepalive > 0, Live: p.Live}
			if len(p.Allowed) > 0 {
				peer.Addr = p.Allowed[0].Addr()
			}
			peer.Node = names[peer.Addr]
			peer.Sends = slices.Contains(actual.Routes, wireguard.Route{Addr: peer.Addr, Device: name})
			d.Peers = append(d.Peers, peer)
		}
		slices.SortFunc(d.Peers, func(a, b TunnelPeer) int { return a.Addr.Compare(b.Addr) })
		out.Devices = append(out.Devices, d)
	}
	slices.SortFunc(out.Devices, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}
