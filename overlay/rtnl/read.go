package rtnl

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"shoal/overlay/vxlan"
)

// read returns what Shoal owns in one namespace, and whether it exists.
func (k *Kernel) read(path string, of kind) (vxlan.Namespace, bool, error) {
	s, err := k.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return vxlan.Namespace{}, false, nil
	}
	if err != nil {
		return vxlan.Namespace{}, false, err
	}
	r := reader{space: s, names: map[int]string{}, links: map[int]*vxlan.Link{}, underlay: k.namer(path, s)}
	steps := []func() error{func() error { return r.readLinks(of) }, r.readAddrs, r.readRoutes}
	if of != sandbox {
		steps = append(steps, r.readPorts)
	}
	if of == overlay {
		steps = append(steps, r.readForward)
	}
	if of != host {
		steps = append(steps, r.readNeighbors)
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return vxlan.Namespace{}, false, err
		}
	}
	ns := vxlan.Namespace{Overlay: of == overlay, Links: make(map[string]vxlan.Link, len(r.links))}
	for index, link := range r.links {
		ns.Links[r.names[index]] = *link
	}
	if of == sandbox {
		if ns.Rules, err = s.rules(); err != nil {
			return vxlan.Namespace{}, false, err
		}
	}
	ns.Sysctls, err = s.sysctls(of)
	return ns, true, err
}

// readPeers returns a vxlan link with its tables, and whether it exists.
func (k *Kernel) readPeers(path, name string) (vxlan.Link, bool, error) {
	s, err := k.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return vxlan.Link{}, false, nil
	}
	if err != nil {
		return vxlan.Link{}, false, err
	}
	found, err := s.netlink.LinkByName(name)
	if gone(err) == nil && err != nil {
		return vxlan.Link{}, false, nil
	}
	if err != nil {
		return vxlan.Link{}, false, err
	}
	if found.Type() != vxlan.KindVXLAN {
		return vxlan.Link{}, false, nil
	}
	link := convert(found, vxlan.KindVXLAN)
	r := reader{space: s, links: map[int]*vxlan.Link{link.Index: link}}
	if err := errors.Join(r.readForward(), r.readNeighbors()); err != nil {
		return vxlan.Link{}, false, err
	}
	return *link, true, nil
}

// reader collects one namespace.
type reader struct {
	*space
	names map[int]string // of all links
	links map[int]*vxlan.Link
	// underlay names the namespace that has the id.
	underlay func(id int) (string, error)
}

// namer returns what tells underlays by the ids that the kernel gives them in a
// namespace; it asks the kernel for each once. A tunnel whose socket is in the
// namespace itself has none.
func (k *Kernel) namer(own string, s *space) func(id int) (string, error) {
	var paths map[int]string
	return func(id int) (string, error) {
		if id < 0 {
			return own, nil
		}
		if paths == nil {
			paths = map[int]string{}
			for path := range k.underlays {
				at, err := k.open(path)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					return "", err
				}
				other, err := s.netlink.GetNetNsIdByFd(at.ns.Fd())
				if err != nil {
					return "", fmt.Errorf("id of namespace %q: %w", path, err)
				}
				paths[other] = path
			}
		}
		if path, ok := paths[id]; ok {
			return path, nil
		}
		return vxlan.UnderlayLost, nil
	}
}

func (r *reader) readLinks(of kind) error {
	links, err := dump(r.netlink.LinkList)
	if err != nil {
		return err
	}
	owns := map[kind]func(kind, name string) bool{
		host: vxlan.OwnsHostLink, overlay: vxlan.OwnsOverlayLink, sandbox: vxlan.OwnsSandboxLink,
	}[of]
	for _, link := range links {
		a := link.Attrs()
		r.names[a.Index] = a.Name
		name := link.Type()
		if a.Flags&net.FlagLoopback != 0 {
			name = vxlan.KindLoopback
		}
		if !owns(name, a.Name) {
			continue
		}
		converted := convert(link, name)
		if name == vxlan.KindVXLAN {
			if converted.Tunnel.Underlay, err = r.underlay(a.NetNsID); err != nil {
				return err
			}
		}
		r.links[a.Index] = converted
	}
	for index, l := range r.links {
		if l.Kind == vxlan.KindVXLAN {
			l.SoftwareChecksums = r.softwareChecksums(r.names[index])
		}
	}
	for _, link := range links {
		if l, a := r.links[link.Attrs().Index], link.Attrs(); l != nil && a.MasterIndex != 0 {
			l.Master = r.names[a.MasterIndex]
		}
	}
	return nil
}

func convert(link netlink.Link, kind string) *vxlan.Link {
	a := link.Attrs()
	out := &vxlan.Link{
		Kind: kind, Index: a.Index, MTU: a.MTU, MAC: a.HardwareAddr.String(), Up: a.Flags&net.FlagUp != 0,
	}
	switch link := link.(type) {
	case *netlink.Veth:
		out.PeerIndex = a.ParentIndex
	case *netlink.Vxlan:
		out.Tunnel = vxlan.Tunnel{
			VNI: uint32(link.VxlanId), Port: uint16(link.Port), Learning: link.Learning, Proxy: link.Proxy,
		}
		// One with a group is none of ours, whatever else it has: no address.
		if link.Group == nil && !link.FlowBased {
			out.Tunnel.Local = addr(link.SrcAddr)
		}
	}
	return out
}

// addr converts an address of the library; a missing one is invalid.
func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func prefix(n net.IPNet) netip.Prefix {
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr(n.IP), bits)
}

func (r *reader) readAddrs() error {
	addrs, err := dump(func() ([]netlink.Addr, error) { return r.netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, a := range addrs {
		p := prefix(*a.IPNet)
		if l := r.links[a.LinkIndex]; l != nil && (p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast()) {
			l.Addrs = append(l.Addrs, p)
		}
	}
	return nil
}

func (r *reader) readRoutes() error {
	routes, err := dump(func() ([]netlink.Route, error) {
		return r.netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: Protocol, Table: unix.RT_TABLE_UNSPEC},
			netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return err
	}
	for _, route := range routes {
		l := r.links[route.LinkIndex]
		if l == nil {
			continue
		}
		hop := vxlan.Hop{Via: addr(route.Gw)}
		if route.Table != unix.RT_TABLE_MAIN {
			hop.Table = uint32(route.Table)
		}
		if route.Dst != nil {
			hop.Dst = prefix(*route.Dst)
		} else if route.Family == netlink.FAMILY_V4 {
			hop.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		} else {
			hop.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		l.Routes = append(l.Routes, hop)
	}
	return nil
}

// readPorts reads how bridges treat their ports (a link dump of the bridge
// family, IFLA_PROTINFO in rtnetlink(7)).
func (r *reader) readPorts() error {
	msgs, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: r.socket}
		req.AddData(nl.NewIfInfomsg(unix.AF_BRIDGE))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return err
	}
	for _, msg := range msgs {
		info := nl.DeserializeIfInfomsg(msg)
		l := r.links[int(info.Index)]
		if l == nil {
			continue
		}
		attrs, err := nl.ParseRouteAttr(msg[info.Len():])
		if err != nil {
			return err
		}
		for _, attr := range attrs {
			if attr.Attr.Type == unix.IFLA_PROTINFO|unix.NLA_F_NESTED {
				l.Port, err = port(attr.Value)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func port(value []byte) (p vxlan.Port, err error) {
	infos, err := nl.ParseRouteAttr(value)
	for _, info := range infos {
		on := len(info.Value) > 0 && info.Value[0] != 0
		switch info.Attr.Type {
		case nl.IFLA_BRPORT_LEARNING:
			p.Learning = on
		case nl.IFLA_BRPORT_UNICAST_FLOOD:
			p.Flood = on
		case nl.IFLA_BRPORT_ISOLATED:
			p.Isolated = on
		case nl.IFLA_BRPORT_MODE: // hairpin
			p.Hairpin = on
		}
	}
	return p, err
}

func (r *reader) readForward() error {
	entries, err := r.neighbors(unix.AF_BRIDGE)
	if err != nil {
		return err
	}
	for _, e := range entries {
		l, mac := r.links[e.LinkIndex], e.HardwareAddr.String()
		switch {
		case l == nil || l.Kind != vxlan.KindVXLAN:
		case e.Flags&netlink.NTF_SELF != 0:
			l.Forward = append(l.Forward, vxlan.Forward{MAC: mac, VTEP: addr(e.IP)})
		case e.State&netlink.NUD_NOARP != 0 && e.Vlan == 0:
			l.Static = append(l.Static, mac)
		}
	}
	return nil
}

func (r *reader) readNeighbors() error {
	entries, err := r.neighbors(unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	for _, e := range entries {
		l := r.links[e.LinkIndex]
		if l != nil && (l.Kind == vxlan.KindVXLAN || l.Kind == vxlan.KindVeth) && e.State&netlink.NUD_PERMANENT != 0 {
			l.Neighbors = append(l.Neighbors, vxlan.Neighbor{Addr: addr(e.IP), MAC: e.HardwareAddr.String()})
		}
	}
	return nil
}

func (r *reader) neighbors(family uint8) ([]netlink.Neigh, error) {
	return dump(func() ([]netlink.Neigh, error) {
		return r.netlink.NeighListExecute(netlink.Ndmsg{Family: family})
	})
}

// sysctls reads the settings that Plan compares; a file that is missing is no
// setting of this kernel.
func (s *space) sysctls(of kind) (map[string]string, error) {
	keys := map[kind][]string{host: vxlan.HostSysctls(), overlay: vxlan.OverlaySysctls()}[of]
	if len(keys) == 0 {
		return nil, nil
	}
	values := make(map[string]string, len(keys))
	err := s.ns.Do(func() error {
		for _, key := range keys {
			value, err := os.ReadFile(sysctlFile(key))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			values[key] = strings.TrimSpace(string(value))
		}
		return nil
	})
	return values, err
}

// sysctlFile is where the calling thread's namespace keeps a setting.
func sysctlFile(key string) string {
	return "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
}
