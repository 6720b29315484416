package wglink

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"shoal/overlay/wireguard"
)

// live is how old a peer's last handshake may be: after that WireGuard itself
// refuses the session (REJECT_AFTER_TIME, 180 s), and some seconds for the clock.
const live = 185 * time.Second

// request begins a message to the wireguard family about a device.
func (s *space) request(command uint8, flags int, name string) (*nl.NetlinkRequest, error) {
	family, err := netlink.GenlFamilyGet(unix.WG_GENL_NAME)
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(int(family.ID), flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: {Socket: s.generic}}
	req.AddData(&nl.Genlmsg{Command: command, Version: unix.WG_GENL_VERSION})
	req.AddData(nl.NewRtAttr(unix.WGDEVICE_A_IFNAME, nl.ZeroTerminated(name)))
	return req, nil
}

func (s *space) set(name string, attrs ...*nl.RtAttr) error {
	req, err := s.request(unix.WG_CMD_SET_DEVICE, unix.NLM_F_ACK, name)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		req.AddData(a)
	}
	_, err = req.Execute(unix.NETLINK_GENERIC, 0)
	return err
}

func (s *space) configure(o wireguard.SetDevice) error {
	var attrs []*nl.RtAttr
	if o.Private != (wireguard.Private{}) {
		attrs = append(attrs, nl.NewRtAttr(unix.WGDEVICE_A_PRIVATE_KEY, o.Private.Reveal()))
	}
	if o.Port != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.WGDEVICE_A_LISTEN_PORT, nl.Uint16Attr(o.Port)))
	}
	return s.set(o.Name, attrs...)
}

func (s *space) setPeers(device string, peers []wireguard.SetPeer) error {
	list := nested(unix.WGDEVICE_A_PEERS)
	for _, p := range peers {
		peer := nested(0)
		peer.AddRtAttr(unix.WGPEER_A_PUBLIC_KEY, p.Key[:])
		peer.AddRtAttr(unix.WGPEER_A_FLAGS, nl.Uint32Attr(unix.WGPEER_F_REPLACE_ALLOWEDIPS))
		if p.Endpoint.IsValid() {
			peer.AddRtAttr(unix.WGPEER_A_ENDPOINT, sockaddr(p.Endpoint))
		}
		keepalive := uint16(0)
		if p.Active {
			keepalive = wireguard.Keepalive
		}
		peer.AddRtAttr(unix.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, nl.Uint16Attr(keepalive))
		allowed := nested(0)
		allowed.AddRtAttr(unix.WGALLOWEDIP_A_FAMILY, nl.Uint16Attr(unix.AF_INET))
		allowed.AddRtAttr(unix.WGALLOWEDIP_A_IPADDR, p.Addr.AsSlice())
		allowed.AddRtAttr(unix.WGALLOWEDIP_A_CIDR_MASK, []byte{uint8(p.Addr.BitLen())})
		addrs := nested(unix.WGPEER_A_ALLOWEDIPS)
		addrs.AddChild(allowed)
		peer.AddChild(addrs)
		list.AddChild(peer)
	}
	return s.set(device, list)
}

func (s *space) delPeer(o wireguard.DelPeer) error {
	peer := nested(0)
	peer.AddRtAttr(unix.WGPEER_A_PUBLIC_KEY, o.Key[:])
	peer.AddRtAttr(unix.WGPEER_A_FLAGS, nl.Uint32Attr(unix.WGPEER_F_REMOVE_ME))
	list := nested(unix.WGDEVICE_A_PEERS)
	list.AddChild(peer)
	return s.set(o.Device, list)
}

func nested(kind int) *nl.RtAttr { return nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil) }

// device reads one device; a dump of many peers comes in several messages.
func (s *space) device(name string) (wireguard.State, error) {
	req, err := s.request(unix.WG_CMD_GET_DEVICE, unix.NLM_F_DUMP, name)
	if err != nil {
		return wireguard.State{}, err
	}
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return wireguard.State{}, err
	}
	state := wireguard.State{Peers: map[wireguard.Key]wireguard.PeerState{}}
	now := time.Now()
	for _, msg := range msgs {
		if len(msg) < nl.SizeofGenlmsg {
			return state, fmt.Errorf("a message of %d bytes is too short", len(msg))
		}
		if err := decode(msg[nl.SizeofGenlmsg:], &state, now); err != nil {
			return state, err
		}
	}
	return state, nil
}

// decode adds what one message says to a device's state.
func decode(raw []byte, state *wireguard.State, now time.Time) error {
	return each(raw, func(kind int, value []byte) error {
		var err error
		switch kind {
		case unix.WGDEVICE_A_PUBLIC_KEY:
			state.Public, err = wireguard.KeyOf(value)
		case unix.WGDEVICE_A_LISTEN_PORT:
			if len(value) >= 2 {
				state.Port = binary.NativeEndian.Uint16(value)
			}
		case unix.WGDEVICE_A_PEERS:
			err = each(value, func(_ int, peer []byte) error { return decodePeer(peer, state, now) })
		}
		return err
	})
}

// decodePeer adds a peer. One whose addresses do not fit into a message is
// continued in the next.
func decodePeer(raw []byte, state *wireguard.State, now time.Time) error {
	var key wireguard.Key
	err := each(raw, func(kind int, value []byte) (err error) {
		if kind == unix.WGPEER_A_PUBLIC_KEY {
			key, err = wireguard.KeyOf(value)
		}
		return err
	})
	if err != nil {
		return err
	}
	peer := state.Peers[key]
	err = each(raw, func(kind int, value []byte) error {
		switch kind {
		case unix.WGPEER_A_ENDPOINT:
			peer.Endpoint = endpoint(value)
		case unix.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL:
			if len(value) >= 2 {
				peer.Keepalive = int(binary.NativeEndian.Uint16(value))
			}
		case unix.WGPEER_A_LAST_HANDSHAKE_TIME:
			if len(value) >= 16 {
				at := time.Unix(int64(binary.NativeEndian.Uint64(value)), int64(binary.NativeEndian.Uint64(value[8:])))
				peer.Live = now.Sub(at) < live
			}
		case unix.WGPEER_A_ALLOWEDIPS:
			return each(value, func(_ int, value []byte) error {
				p, err := allowed(value)
				peer.Allowed = append(peer.Allowed, p)
				return err
			})
		}
		return nil
	})
	state.Peers[key] = peer
	return err
}

func allowed(raw []byte) (netip.Prefix, error) {
	var addr netip.Addr
	bits := 0
	err := each(raw, func(kind int, value []byte) error {
		switch kind {
		case unix.WGALLOWEDIP_A_IPADDR:
			addr, _ = netip.AddrFromSlice(value)
		case unix.WGALLOWEDIP_A_CIDR_MASK:
			if len(value) > 0 {
				bits = int(value[0])
			}
		}
		return nil
	})
	return netip.PrefixFrom(addr, bits), err
}

// each calls f with every attribute of a message.
func each(raw []byte, f func(kind int, value []byte) error) error {
	attrs, err := nl.ParseRouteAttr(raw)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if err := f(int(a.Attr.Type&nl.NLA_TYPE_MASK), a.Value); err != nil {
			return err
		}
	}
	return nil
}

// sockaddr is struct sockaddr_in or sockaddr_in6.
func sockaddr(at netip.AddrPort) []byte {
	addr := at.Addr().Unmap()
	if addr.Is4() {
		out := make([]byte, unix.SizeofSockaddrInet4)
		binary.NativeEndian.PutUint16(out, unix.AF_INET)
		binary.BigEndian.PutUint16(out[2:], at.Port())
		copy(out[4:], addr.AsSlice())
		return out
	}
	out := make([]byte, unix.SizeofSockaddrInet6)
	binary.NativeEndian.PutUint16(out, unix.AF_INET6)
	binary.BigEndian.PutUint16(out[2:], at.Port())
	copy(out[8:], addr.AsSlice())
	return out
}

// endpoint reads what sockaddr writes.
func endpoint(raw []byte) netip.AddrPort {
	if len(raw) < 4 {
		return netip.AddrPort{}
	}
	from, to := 4, 8
	if binary.NativeEndian.Uint16(raw) == unix.AF_INET6 {
		from, to = 8, 24
	}
	if len(raw) < to {
		return netip.AddrPort{}
	}
	addr, _ := netip.AddrFromSlice(raw[from:to])
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(raw[2:]))
}
