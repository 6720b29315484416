package wglink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
	"shoal/overlay/wireguard"
)

// peersAtOnce bounds the peers of one message; an attribute has at most 64 KiB.
const peersAtOnce = 128

// Apply carries the operations out in order and stops at the first that fails;
// the error says which one. Those before it stay done.
func (k *Kernel) Apply(ctx context.Context, ops []wireguard.Op) error {
	var s *space
	defer func() {
		if s != nil {
			s.close()
		}
	}()
	for len(ops) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		op, count := ops[0], 1
		var err error
		switch o := op.(type) {
		case wireguard.AddVault:
			err = netns.Create(k.Path)
		case wireguard.DelVault:
			err = k.delete()
		default:
			if s == nil {
				s, err = open(k.Path)
			}
			if first, ok := o.(wireguard.SetPeer); ok && err == nil {
				var peers []wireguard.SetPeer
				peers, count = samePeers(first, ops)
				err = s.setPeers(first.Device, peers)
			} else if err == nil {
				err = k.apply(s, o)
			}
		}
		if err != nil {
			return fmt.Errorf("apply %q to the vault: %w", op, err)
		}
		ops = ops[count:]
	}
	return nil
}

// samePeers takes the operations on peers of one device off the head of the list.
func samePeers(first wireguard.SetPeer, ops []wireguard.Op) (peers []wireguard.SetPeer, count int) {
	for _, op := range ops {
		o, ok := op.(wireguard.SetPeer)
		if !ok || o.Device != first.Device || len(peers) == peersAtOnce {
			break
		}
		peers = append(peers, o)
	}
	return peers, len(peers)
}

// delete takes the devices down before the name: what still holds the namespace
// open must not keep them alive.
func (k *Kernel) delete() error {
	s, err := open(k.Path)
	if err != nil {
		return err
	}
	defer s.close()
	links, err := s.route.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Type() == "wireguard" {
			err = errors.Join(err, s.route.LinkDel(link))
		}
	}
	return errors.Join(err, netns.Delete(k.Path))
}

func (k *Kernel) apply(s *space, op wireguard.Op) error {
	switch o := op.(type) {
	case wireguard.SetSysctl:
		return s.ns.Do(func() error { return os.WriteFile(sysctlFile(o.Key), []byte(o.Value), 0) })
	case wireguard.SetLoopback:
		return s.on("lo", s.route.LinkSetUp)
	case wireguard.SetAddr:
		return s.on("lo", func(l netlink.Link) error { return s.route.AddrReplace(l, address(o.Addr)) })
	case wireguard.DelAddr:
		return s.on("lo", func(l netlink.Link) error { return s.route.AddrDel(l, address(o.Addr)) })
	case wireguard.AddDevice:
		return k.addDevice(s, o)
	case wireguard.SetDevice:
		return s.setDevice(o)
	case wireguard.DelPeer:
		return s.delPeer(o)
	case wireguard.DelLink:
		return s.on(o.Name, s.route.LinkDel)
	case wireguard.SetRoute:
		return s.on(o.Device, func(l netlink.Link) error { return s.route.RouteReplace(route(l, o.Addr)) })
	case wireguard.DelRoute:
		return s.on(o.Device, func(l netlink.Link) error { return s.route.RouteDel(route(l, o.Addr)) })
	}
	return fmt.Errorf("unknown operation %T", op)
}

func (s *space) on(name string, f func(netlink.Link) error) error {
	link, err := s.route.LinkByName(name)
	if err != nil {
		return err
	}
	return f(link)
}

// addDevice asks the node's own namespace for a device in the vault, in one
// step: the device is never seen outside, and its UDP socket will be.
func (k *Kernel) addDevice(s *space, o wireguard.AddDevice) error {
	host, err := open(k.Host)
	if err != nil {
		return err
	}
	defer host.close()
	link := &netlink.Wireguard{LinkAttrs: attrs(o.Name, o.MTU)}
	link.Namespace = netlink.NsFd(s.ns.Fd())
	return host.route.LinkAdd(link)
}

func (s *space) setDevice(o wireguard.SetDevice) error {
	if o.Private != (wireguard.Private{}) || o.Port != 0 {
		if err := s.configure(o); err != nil {
			return taken(err, o.Port)
		}
	}
	return s.on(o.Name, func(l netlink.Link) error {
		if o.MTU != 0 {
			if err := s.route.LinkSetMTU(l, o.MTU); err != nil {
				return err
			}
		}
		if !o.Up {
			return nil
		}
		return taken(s.route.LinkSetUp(l), o.Port)
	})
}

// taken says what EADDRINUSE means here.
func taken(err error, port uint16) error {
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	return fmt.Errorf("UDP port %d of this node is taken by another program (encrypted networks need %d and %d): %w",
		port, wireguard.BasePort, wireguard.BasePort+1, err)
}

func address(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: host(a)}
}

func route(l netlink.Link, to netip.Addr) *netlink.Route {
	return &netlink.Route{LinkIndex: l.Attrs().Index, Dst: host(to), Scope: netlink.SCOPE_LINK}
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}
