package rtnl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
	"shoal/overlay/vxlan"
)

// Apply carries the operations out in order. One that fails keeps those that build
// on it from being tried, and no others; the error joins a *vxlan.OpError for each.
// The links that it made carry packets when it returns.
func (k *Kernel) Apply(ctx context.Context, ops []vxlan.Op) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.spaces {
		clear(s.index)
	}
	var failed vxlan.Failed
	var made wires
	for len(ops) > 0 {
		op, count := ops[0], 1
		if err := ctx.Err(); err != nil {
			return errors.Join(append(failed.Errs(), &vxlan.OpError{Op: op, Err: err})...)
		}
		var err error
		if _, ok := op.(vxlan.DelLink); ok {
			count = deletions(ops)
			err = k.delLinks(ops[:count])
		} else if !failed.Blocks(op) {
			err = k.apply(ctx, op)
		}
		if err != nil {
			for _, op := range ops[:count] {
				failed.Add(op, err)
			}
		} else if !failed.Blocks(op) {
			made.note(op)
		}
		ops = ops[count:]
	}
	return errors.Join(append(failed.Errs(), k.awaitCarrier(ctx, made))...)
}

func (k *Kernel) apply(ctx context.Context, op vxlan.Op) error {
	switch o := op.(type) {
	case vxlan.AddNamespace:
		k.bury(o.Path)
		return netns.Create(k.file(o.Path))
	case vxlan.DelNamespace:
		k.drop(o.Path)
		return netns.Delete(k.file(o.Path))
	case vxlan.SetSysctl:
		return k.setSysctl(o)
	case vxlan.SetRule:
		return k.setRule(o)
	case vxlan.DelRule:
		return k.delRule(o)
	case vxlan.AddBridge:
		return k.addBridge(o)
	case vxlan.AddVXLAN:
		return k.addVXLAN(ctx, o)
	case vxlan.AddVeth:
		return k.addVeth(o)
	case vxlan.SetLink:
		return k.on(o.Namespace, o.Name, func(s *space, index int) error { return k.setLink(s, o, index) })
	case vxlan.SetSoftwareChecksums:
		s, err := k.open(o.Namespace)
		if err != nil {
			return err
		}
		return s.setSoftwareChecksums(o.Name)
	case vxlan.SetPort:
		return k.on(o.Namespace, o.Name, func(s *space, index int) error {
			link := byIndex(index)
			return errors.Join(s.netlink.LinkSetLearning(link, o.Port.Learning),
				s.netlink.LinkSetFlood(link, o.Port.Flood), s.netlink.LinkSetIsolated(link, o.Port.Isolated),
				s.netlink.LinkSetHairpin(link, o.Port.Hairpin))
		})
	}
	return k.applyEntry(op)
}

// applyEntry applies the operations on what links carry.
func (k *Kernel) applyEntry(op vxlan.Op) error {
	switch o := op.(type) {
	case vxlan.SetAddr:
		return k.on(o.Namespace, o.Link, func(s *space, i int) error {
			return s.netlink.AddrReplace(byIndex(i), address(o.Addr))
		})
	case vxlan.DelAddr:
		return gone(k.on(o.Namespace, o.Link, func(s *space, i int) error {
			return s.netlink.AddrDel(byIndex(i), address(o.Addr))
		}))
	case vxlan.SetRoute:
		return k.on(o.Namespace, o.Link, func(s *space, i int) error { return s.netlink.RouteReplace(route(i, o.Hop)) })
	case vxlan.DelRoute:
		return gone(k.on(o.Namespace, o.Link, func(s *space, i int) error { return s.netlink.RouteDel(route(i, o.Hop)) }))
	case vxlan.SetForward:
		return k.neighbor(o.Namespace, o.Link, (*netlink.Handle).NeighSet, forward(o.Forward))
	case vxlan.DelForward:
		return gone(k.neighbor(o.Namespace, o.Link, (*netlink.Handle).NeighDel, forward(o.Forward)))
	case vxlan.SetStatic:
		return k.neighbor(o.Namespace, o.Link, (*netlink.Handle).NeighSet, static(o.MAC))
	case vxlan.DelStatic:
		return gone(k.neighbor(o.Namespace, o.Link, (*netlink.Handle).NeighDel, static(o.MAC)))
	case vxlan.SetNeighbor:
		return k.neighbor(o.Namespace, o.Link, (*netlink.Handle).NeighSet, neighbor(o.Neighbor))
	case vxlan.DelNeighbor:
		return gone(k.neighbor(o.Namespace, o.Link, (*netlink.Handle).NeighDel, neighbor(o.Neighbor)))
	}
	return fmt.Errorf("unknown operation %T", op)
}

// gone takes "there is no such thing" for success of a deletion.
func gone(err error) error {
	var missing netlink.LinkNotFoundError
	for _, is := range []error{fs.ErrNotExist, unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL} {
		if errors.Is(err, is) {
			return nil
		}
	}
	if errors.As(err, &missing) {
		return nil
	}
	return err
}

// on runs f with an open namespace and a link's number in it.
func (k *Kernel) on(path, name string, f func(*space, int) error) error {
	s, err := k.open(path)
	if err != nil {
		return err
	}
	index, err := s.number(name)
	if err != nil {
		return err
	}
	return f(s, index)
}

// number looks a link up, once per Apply.
func (s *space) number(name string) (int, error) {
	if index, ok := s.index[name]; ok {
		return index, nil
	}
	link, err := s.netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	s.index[name] = link.Attrs().Index
	return s.index[name], nil
}

// byIndex stands for a link whose number alone matters.
func byIndex(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func (k *Kernel) setSysctl(o vxlan.SetSysctl) error {
	s, err := k.open(o.Namespace)
	if err != nil {
		return err
	}
	return s.ns.Do(func() error {
		if o.Namespace == "" && o.Key == vxlan.Forwarding6 {
			if err := keepListening(); err != nil {
				return err
			}
		}
		return writeSysctl(sysctlFile(o.Key), o.Value)
	})
}

// writeSysctl passes over a setting that the kernel does not have.
func writeSysctl(path, value string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	return errors.Join(err, file.Close())
}

// keepListening makes the links that heed router advertisements, and those that
// come later, heed them also while the node forwards.
func keepListening() error {
	files, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, file := range files {
		value, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(value)) != "1" {
			continue // the link may be gone by now
		}
		if err := writeSysctl(file, "2"); err != nil {
			return err
		}
	}
	return nil
}

func attrs(name string, mtu int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = name, mtu
	return a
}

func (k *Kernel) addBridge(o vxlan.AddBridge) error {
	s, err := k.open(o.Namespace)
	if err != nil {
		return err
	}
	snooping := false
	return s.netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs(o.Name, 0), MulticastSnooping: &snooping})
}

// What a vxlan link waits for when the kernel says that its VNI is taken: it
// still takes down a namespace that was just deleted.
const (
	vniWait  = 3 * time.Second
	vniPause = 20 * time.Millisecond
)

// addVXLAN asks the underlay's namespace for a link in another one, in one step:
// the link is never seen there, and its socket is there.
func (k *Kernel) addVXLAN(ctx context.Context, o vxlan.AddVXLAN) error {
	from, err := k.open(o.Tunnel.Underlay)
	if err != nil {
		return err
	}
	to, err := k.open(o.Namespace)
	if err != nil {
		return err
	}
	link := &netlink.Vxlan{
		LinkAttrs: attrs(o.Name, o.MTU), VxlanId: int(o.Tunnel.VNI), SrcAddr: o.Tunnel.Local.AsSlice(),
		Port: int(o.Tunnel.Port), Learning: o.Tunnel.Learning, Proxy: o.Tunnel.Proxy,
	}
	link.Namespace = netlink.NsFd(to.ns.Fd())
	ctx, cancel := context.WithTimeout(ctx, vniWait)
	defer cancel()
	for {
		err := from.netlink.LinkAdd(link)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		if _, taken := to.number(o.Name); taken == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(vniPause):
		}
	}
}

func (k *Kernel) addVeth(o vxlan.AddVeth) error {
	outer, err := k.open(o.Namespace)
	if err != nil {
		return err
	}
	inner, err := k.open(o.PeerNamespace)
	if err != nil {
		return err
	}
	link := netlink.NewVeth(attrs(o.Name, o.MTU))
	link.PeerName, link.PeerNamespace = o.PeerName, netlink.NsFd(inner.ns.Fd())
	if o.PeerMAC != "" {
		if link.PeerHardwareAddr, err = net.ParseMAC(o.PeerMAC); err != nil {
			return err
		}
	}
	return outer.netlink.LinkAdd(link)
}

func (k *Kernel) setLink(s *space, o vxlan.SetLink, index int) error {
	link := byIndex(index)
	if o.MTU != 0 {
		if err := s.netlink.LinkSetMTU(link, o.MTU); err != nil {
			return err
		}
	}
	if o.MAC != "" {
		mac, err := net.ParseMAC(o.MAC)
		if err == nil {
			err = s.netlink.LinkSetHardwareAddr(link, mac)
		}
		if err != nil {
			return err
		}
	}
	if o.Master != "" {
		master, err := s.number(o.Master)
		if err == nil {
			err = s.netlink.LinkSetMasterByIndex(link, master)
		}
		if err != nil {
			return err
		}
	}
	if o.Up {
		return s.netlink.LinkSetUp(link)
	}
	return nil
}

func ipnet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// address has no duplicate detection: managers give every address out once.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipnet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func route(index int, hop vxlan.Hop) *netlink.Route {
	r := &netlink.Route{LinkIndex: index, Dst: ipnet(hop.Dst), Protocol: Protocol, Scope: netlink.SCOPE_LINK, Table: int(hop.Table)}
	if hop.Via.IsValid() {
		r.Gw, r.Scope = hop.Via.AsSlice(), netlink.SCOPE_UNIVERSE
	}
	return r
}

// neighbor sets or deletes an entry of a link.
func (k *Kernel) neighbor(path, name string, do func(*netlink.Handle, *netlink.Neigh) error, e entry) error {
	mac, err := net.ParseMAC(e.mac)
	if err != nil {
		return err
	}
	e.HardwareAddr = mac
	return k.on(path, name, func(s *space, index int) error {
		e.LinkIndex = index
		return do(s.netlink, &e.Neigh)
	})
}

// entry is a neighbour or forwarding entry before its hardware address is parsed.
type entry struct {
	netlink.Neigh
	mac string
}

func forward(f vxlan.Forward) entry {
	return entry{netlink.Neigh{
		Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF, IP: f.VTEP.AsSlice(),
	}, f.MAC}
}

func static(mac string) entry {
	return entry{netlink.Neigh{Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER}, mac}
}

func neighbor(n vxlan.Neighbor) entry {
	return entry{netlink.Neigh{State: netlink.NUD_PERMANENT, IP: n.Addr.AsSlice()}, n.MAC}
}
