package rtnl

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// MTUs returns, in bytes, the MTU of the link that holds the data path's address,
// and the least MTU of the links that default routes lead through, which is the
// former where there is no such route.
func (k *Kernel) MTUs(dataPath netip.Addr) (path, egress int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, err := k.open("")
	if err != nil {
		return 0, 0, err
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return s.netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return 0, 0, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if addr(a.IP) == dataPath.Unmap() {
			path, err = s.mtu(a.LinkIndex)
			break
		}
	}
	if path == 0 {
		return 0, 0, cmp.Or(err, fmt.Errorf("no interface has the data path's address %s", dataPath))
	}
	egress, err = s.egressMTU()
	return path, cmp.Or(egress, path), err
}

func (s *space) mtu(index int) (int, error) {
	link, err := s.netlink.LinkByIndex(index)
	if err != nil {
		return 0, fmt.Errorf("find link %d: %w", index, err)
	}
	return link.Attrs().MTU, nil
}

// egressMTU is the least MTU of the default routes' links, 0 without any.
func (s *space) egressMTU() (least int, err error) {
	routes, err := dump(func() ([]netlink.Route, error) {
		return s.netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.LinkIndex == 0 || r.Dst != nil && prefix(*r.Dst).Bits() != 0 {
			continue
		}
		mtu, err := s.mtu(r.LinkIndex)
		if err != nil {
			return 0, err
		}
		if least == 0 || mtu < least {
			least = mtu
		}
	}
	return least, nil
}
