package rtnl

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Addrs returns the addresses of the node's own namespace by the names of their
// links, without those that mean something on their link alone.
func (k *Kernel) Addrs() (map[string][]netip.Addr, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, err := k.open("")
	if err != nil {
		return nil, err
	}
	found, err := dump(func() ([]netlink.Addr, error) { return s.netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	names, out := map[int]string{}, map[string][]netip.Addr{}
	for _, a := range found {
		ip := addr(a.IP)
		if ip.Is6() && ip.IsLinkLocalUnicast() {
			continue
		}
		if names[a.LinkIndex] == "" {
			link, err := s.netlink.LinkByIndex(a.LinkIndex)
			if err != nil {
				return nil, fmt.Errorf("find link %d: %w", a.LinkIndex, err)
			}
			names[a.LinkIndex] = link.Attrs().Name
		}
		out[names[a.LinkIndex]] = append(out[names[a.LinkIndex]], ip)
	}
	return out, nil
}
