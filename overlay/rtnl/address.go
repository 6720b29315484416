package rtnl

import (
	"fmt"
	"net"
	"net/netip"
)

// InterfaceAddrs returns the addresses of a link in the process's own namespace
// that other machines can use, IPv4 first, each family in the kernel's order:
// no loopback, multicast or IPv6 link-local ones. None is an error.
func InterfaceAddrs(name string) ([]netip.Addr, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	addrs, err := link.Addrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses of interface %s: %w", name, err)
	}
	var four, six []netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !usable(p.Addr()) {
			continue
		}
		if p.Addr().Is4() {
			four = append(four, p.Addr())
		} else {
			six = append(six, p.Addr())
		}
	}
	if len(four)+len(six) == 0 {
		return nil, fmt.Errorf("interface %s has no usable address", name)
	}
	return append(four, six...), nil
}

func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !(a.Is6() && a.IsLinkLocalUnicast())
}

// DataPathMTU returns the MTU, in bytes, of the link in the process's own
// namespace that holds addr.
func DataPathMTU(addr netip.Addr) (int, error) {
	links, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			return 0, fmt.Errorf("list addresses of interface %s: %w", link.Name, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr.Unmap() {
				return link.MTU, nil
			}
		}
	}
	return 0, fmt.Errorf("no interface has the address %s", addr)
}
