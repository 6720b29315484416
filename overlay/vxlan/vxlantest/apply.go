package vxlantest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"shoal/overlay/vxlan"
)

func (k *Kernel) apply(op vxlan.Op) error {
	switch o := op.(type) {
	case vxlan.AddNamespace:
		if k.spaces[o.Path] != nil {
			return fs.ErrExist
		}
		k.addSpace(o.Path)
		return nil
	case vxlan.DelNamespace:
		k.Vanish(o.Path)
		return nil
	case vxlan.SetSysctl:
		s := k.spaces[o.Namespace]
		if s == nil {
			return fs.ErrNotExist
		}
		if _, exists := s.sysctls[o.Key]; exists {
			s.sysctls[o.Key] = o.Value
		}
		return nil
	case vxlan.SetRule, vxlan.DelRule:
		return k.rule(op)
	case vxlan.AddBridge, vxlan.AddVXLAN, vxlan.AddVeth:
		return k.add(op)
	case vxlan.DelLink:
		if l, err := k.find(o.Namespace, o.Name); err == nil {
			if l.Kind == vxlan.KindLoopback {
				return errors.ErrUnsupported
			}
			k.delLink(l)
		}
		return nil
	case vxlan.SetLink:
		return k.setLink(o)
	case vxlan.SetSoftwareChecksums:
		l, err := k.find(o.Namespace, o.Name)
		if err == nil {
			l.SoftwareChecksums = true
		}
		return err
	case vxlan.SetPort:
		l, err := k.find(o.Namespace, o.Name)
		if err == nil && l.Master == "" {
			err = fmt.Errorf("not a port: %w", errors.ErrUnsupported)
		}
		if err == nil {
			l.Port = o.Port
		}
		return err
	}
	return k.entry(op)
}

func (k *Kernel) rule(op vxlan.Op) error {
	set, adds := op.(vxlan.SetRule)
	if !adds {
		set = vxlan.SetRule(op.(vxlan.DelRule))
	}
	s := k.spaces[set.Namespace]
	switch {
	case s == nil:
		return fs.ErrNotExist
	case !adds:
		_ = remove(&s.rules, set.Rule) // gone already is as good
	case !slices.Contains(s.rules, set.Rule):
		s.rules = append(s.rules, set.Rule)
	}
	return nil
}

func (k *Kernel) add(op vxlan.Op) error {
	switch o := op.(type) {
	case vxlan.AddBridge:
		if err := k.room(o.Namespace, o.Name); err != nil {
			return err
		}
		k.addLink(o.Namespace, o.Name, vxlan.Link{Kind: vxlan.KindBridge, MTU: 1500, MAC: "02:00:00:00:00:01"})
	case vxlan.AddVXLAN:
		if err := k.room(o.Namespace, o.Name); err != nil {
			return err
		}
		for path, s := range k.spaces {
			for name, l := range s.links {
				if l.Kind == vxlan.KindVXLAN && l.Tunnel.VNI == o.Tunnel.VNI && l.Tunnel.Port == o.Tunnel.Port && l.Tunnel.Underlay == o.Tunnel.Underlay {
					return fmt.Errorf("VNI %d is taken by %q in %q: %w", o.Tunnel.VNI, name, path, fs.ErrExist)
				}
			}
		}
		k.addLink(o.Namespace, o.Name, vxlan.Link{Kind: vxlan.KindVXLAN, MTU: o.MTU, Tunnel: o.Tunnel, MAC: "02:00:00:00:00:02"})
	case vxlan.AddVeth:
		err := errors.Join(k.room(o.Namespace, o.Name), k.room(o.PeerNamespace, o.PeerName))
		if err != nil {
			return err
		}
		mtu := o.MTU
		if mtu == 0 {
			mtu = 1500
		}
		outer := k.addLink(o.Namespace, o.Name, vxlan.Link{Kind: vxlan.KindVeth, MTU: mtu, MAC: "02:00:00:00:00:03"})
		inner := k.addLink(o.PeerNamespace, o.PeerName, vxlan.Link{Kind: vxlan.KindVeth, MTU: mtu, MAC: o.PeerMAC})
		outer.peer, inner.peer = inner, outer
	}
	return nil
}

func (k *Kernel) setLink(o vxlan.SetLink) error {
	l, err := k.find(o.Namespace, o.Name)
	if err != nil {
		return err
	}
	if o.Master != "" {
		master, err := k.find(o.Namespace, o.Master)
		if err != nil {
			return err
		}
		if master.Kind != vxlan.KindBridge {
			return fmt.Errorf("master %q is no bridge: %w", o.Master, errors.ErrUnsupported)
		}
		l.leave()
		l.Master, l.Port = o.Master, vxlan.Port{Learning: true, Flood: true}
	}
	if o.MAC != "" {
		if _, err := net.ParseMAC(o.MAC); err != nil {
			return err
		}
		l.MAC = o.MAC
	}
	if o.MTU != 0 {
		l.MTU = o.MTU
	}
	l.Up = l.Up || o.Up
	return nil
}

// entry changes what a link carries.
func (k *Kernel) entry(op vxlan.Op) error {
	switch o := op.(type) {
	case vxlan.SetAddr:
		return k.with(o.Namespace, o.Link, func(l *link) error {
			if !slices.Contains(l.Addrs, o.Addr) {
				l.Addrs = append(l.Addrs, o.Addr)
			}
			return nil
		})
	case vxlan.DelAddr:
		return k.with(o.Namespace, o.Link, func(l *link) error { return l.delAddr(o.Addr) })
	case vxlan.SetRoute:
		return k.with(o.Namespace, o.Link, func(l *link) error { return k.setRoute(l, o.Hop) })
	case vxlan.DelRoute:
		return k.with(o.Namespace, o.Link, func(l *link) error {
			_ = remove(&l.Routes, o.Hop) // gone with an address or its subnet is as good
			return nil
		})
	case vxlan.SetForward:
		return k.tunnel(o.Namespace, o.Link, func(l *link) error {
			l.Forward = slices.DeleteFunc(l.Forward, func(f vxlan.Forward) bool { return f.MAC == o.Forward.MAC })
			l.Forward = append(l.Forward, o.Forward)
			return nil
		})
	case vxlan.DelForward:
		return k.tunnel(o.Namespace, o.Link, func(l *link) error { return remove(&l.Forward, o.Forward) })
	case vxlan.SetStatic:
		return k.tunnel(o.Namespace, o.Link, func(l *link) error {
			if l.Master == "" {
				return fmt.Errorf("not a port: %w", errors.ErrUnsupported)
			}
			if !slices.Contains(l.Static, o.MAC) {
				l.Static = append(l.Static, o.MAC)
			}
			return nil
		})
	case vxlan.DelStatic:
		return k.tunnel(o.Namespace, o.Link, func(l *link) error { return remove(&l.Static, o.MAC) })
	case vxlan.SetNeighbor:
		return k.with(o.Namespace, o.Link, func(l *link) error {
			if !l.Up && l.Kind != vxlan.KindVXLAN {
				return fmt.Errorf("link %q is down: %w", o.Link, errors.ErrUnsupported)
			}
			l.Neighbors = slices.DeleteFunc(l.Neighbors, func(n vxlan.Neighbor) bool { return n.Addr == o.Neighbor.Addr })
			l.Neighbors = append(l.Neighbors, o.Neighbor)
			return nil
		})
	case vxlan.DelNeighbor:
		return k.with(o.Namespace, o.Link, func(l *link) error { return remove(&l.Neighbors, o.Neighbor) })
	}
	return fmt.Errorf("unknown operation %T", op)
}

func (k *Kernel) with(path, name string, f func(*link) error) error {
	l, err := k.find(path, name)
	if err != nil {
		return err
	}
	return f(l)
}

func (k *Kernel) tunnel(path, name string, f func(*link) error) error {
	return k.with(path, name, func(l *link) error {
		if l.Kind != vxlan.KindVXLAN {
			return fmt.Errorf("link %q is no vxlan: %w", name, errors.ErrUnsupported)
		}
		return f(l)
	})
}

func remove[T comparable](list *[]T, item T) error {
	i := slices.Index(*list, item)
	if i < 0 {
		return fs.ErrNotExist
	}
	*list = slices.Delete(slices.Clone(*list), i, i+1)
	return nil
}

// delAddr drops the rest of an IPv4 subnet with its first address, and the
// routes with the last.
func (l *link) delAddr(addr netip.Prefix) error {
	first := slices.IndexFunc(l.Addrs, func(a netip.Prefix) bool { return sameSubnet(a, addr) })
	if first >= 0 && l.Addrs[first] == addr {
		l.Addrs = slices.DeleteFunc(slices.Clone(l.Addrs), func(a netip.Prefix) bool { return sameSubnet(a, addr) })
	} else if err := remove(&l.Addrs, addr); err != nil {
		return err
	}
	if !slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return a.Addr().Is4() }) {
		l.Routes = slices.DeleteFunc(slices.Clone(l.Routes), func(h vxlan.Hop) bool { return h.Dst.Addr().Is4() })
	}
	return nil
}

// setRoute replaces the route with the same destination, on whichever link.
func (k *Kernel) setRoute(l *link, hop vxlan.Hop) error {
	if !l.Up {
		return fmt.Errorf("link %q is down: %w", l.name, errors.ErrUnsupported)
	}
	onLink := slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return a.Masked().Contains(hop.Via) }) ||
		slices.ContainsFunc(l.Routes, func(h vxlan.Hop) bool { return !h.Via.IsValid() && h.Dst.Contains(hop.Via) })
	if hop.Via.IsValid() && !onLink {
		return fmt.Errorf("gateway %s is not on link %q: %w", hop.Via, l.name, errors.ErrUnsupported)
	}
	for _, other := range k.spaces[l.space].links {
		other.Routes = slices.DeleteFunc(slices.Clone(other.Routes), func(h vxlan.Hop) bool { return h.Dst == hop.Dst && h.Table == hop.Table })
	}
	l.Routes = append(l.Routes, hop)
	return nil
}
