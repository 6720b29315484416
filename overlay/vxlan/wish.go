package vxlan

import (
	"net/netip"
	"strings"
)

// place names a link.
type place struct{ namespace, link string }

// wished is a link as it should be. Of the embedded Link, an MTU of 0 and an
// empty MAC stand for "any".
type wished struct {
	place
	Link
	// inner is the other end of a veth pair, set on the outer end only.
	inner place
}

// space is a namespace as it should be.
type space struct {
	path    string
	overlay bool
	sysctls []SetSysctl
	rules   []Rule
}

// wish is Desired in the terms of Actual: namespaces and links in the order in
// which they are to be made. It is built once and not changed afterwards.
type wish struct {
	// filtered is that of the gateway.
	filtered bool
	spaces   []space
	links    []*wished
	byName   map[place]*wished
}

func newWish(d Desired) *wish {
	w := &wish{byName: make(map[place]*wished)}
	w.host(d)
	masters := map[string]place{}
	if d.Gateway != nil {
		masters[""] = place{"", d.Gateway.Name}
	}
	for _, n := range d.Networks {
		masters[n.ID] = place{n.Namespace, BridgeName}
		w.network(n)
	}
	for _, s := range d.Sandboxes {
		w.sandbox(s, masters)
	}
	return w
}

func (w *wish) add(l *wished) {
	l.Up = true
	l.MAC = strings.ToLower(l.MAC)
	w.links = append(w.links, l)
	w.byName[l.place] = l
}

func (w *wish) host(d Desired) {
	host := space{}
	if needsForwarding(d) {
		host.sysctls = forwarding(d)
	}
	w.spaces = append(w.spaces, host)
	if d.Gateway == nil {
		return
	}
	w.filtered = d.Gateway.Filtered
	w.add(&wished{place: place{"", d.Gateway.Name}, Link: Link{
		Kind: KindBridge, MTU: d.Gateway.MTU, Addrs: d.Gateway.Addrs,
	}})
}

func (w *wish) network(n Network) {
	ns := n.Namespace
	w.spaces = append(w.spaces, space{path: ns, overlay: true, sysctls: overlaySysctls(n)})
	w.add(&wished{place: place{ns, "lo"}, Link: Link{Kind: KindLoopback}})
	bridge := &wished{place: place{ns, BridgeName}, Link: Link{Kind: KindBridge, MTU: n.MTU}}
	w.add(bridge)
	bridge.MAC, bridge.Addrs = strings.ToLower(n.MAC), n.Addrs
	tunnel := &wished{place: place{ns, TunnelName(n.VNI)}, Link: Link{
		Kind: KindVXLAN, MTU: n.MTU, Master: BridgeName, SoftwareChecksums: n.SoftwareChecksums,
		Tunnel: Tunnel{VNI: n.VNI, Underlay: n.Underlay, Local: n.Local.Unmap(), Port: n.Port, Proxy: true},
	}}
	peers(n, &tunnel.Link)
	w.add(tunnel)
	if b := n.Balancer; b != nil {
		bridge.MAC, bridge.Addrs = strings.ToLower(b.MAC), b.Addrs
		bridge.Routes = uncovered(n.Subnets, b.Addrs)
		w.balancer(n, *b)
	}
}

// peers fills a vxlan link's tables. Of two peers with one hardware address,
// or one address, the first is taken: while a task moves, both may be listed.
// What answers at our own VTEP is no peer, nor is what our socket cannot reach
// because its address is of the other family.
func peers(n Network, tunnel *Link) {
	seen := map[string]bool{}
	known := map[netip.Addr]bool{}
	for _, p := range n.Peers {
		mac := strings.ToLower(p.MAC)
		if p.VTEP.Unmap() == tunnel.Tunnel.Local || p.VTEP.Unmap().Is4() != tunnel.Tunnel.Local.Is4() {
			continue
		}
		if !seen[mac] {
			seen[mac] = true
			tunnel.Forward = append(tunnel.Forward, Forward{mac, p.VTEP.Unmap()})
			tunnel.Static = append(tunnel.Static, mac)
		}
		for _, addr := range p.Addrs {
			if !known[addr] {
				known[addr] = true
				tunnel.Neighbors = append(tunnel.Neighbors, Neighbor{addr, mac})
			}
		}
	}
}

// balancer adds the veth pair between the host and the namespace, and sends
// what the namespace itself does not know back to the host. Its MTU is the
// network's, so that the host itself tells clients what is too big, from an
// address that they can reach.
func (w *wish) balancer(n Network, b Balancer) {
	inner := place{n.Namespace, BalancerLink}
	w.add(&wished{place: place{"", BalancerPort(n.ID)}, inner: inner, Link: Link{
		Kind: KindVeth, MTU: n.MTU, Addrs: b.HostAddrs,
	}})
	end := &wished{place: inner, Link: Link{Kind: KindVeth, MTU: n.MTU, Addrs: b.PeerAddrs}}
	for _, host := range b.HostAddrs {
		end.Routes = append(end.Routes, Hop{Dst: everything(host.Addr()), Via: host.Addr()})
	}
	w.add(end)
}

// sandbox adds a task's legs. A leg whose network or gateway is not wished has
// nothing to be plugged into and is left out.
func (w *wish) sandbox(s Sandbox, masters map[string]place) {
	w.spaces = append(w.spaces, space{path: s.Namespace, rules: s.Rules})
	w.add(&wished{place: place{s.Namespace, "lo"}, Link: Link{Kind: KindLoopback}})
	for _, leg := range s.Interfaces {
		master, ok := masters[leg.NetworkID]
		if !ok {
			continue
		}
		inner := place{s.Namespace, leg.Name}
		port := Port{Learning: true, Flood: true}
		if leg.NetworkID == "" {
			port.Isolated, port.Hairpin = !w.filtered, w.filtered
		}
		w.add(&wished{place: place{master.namespace, TaskPort(s.ID, leg)}, inner: inner, Link: Link{
			Kind: KindVeth, MTU: leg.MTU, Master: master.link, Port: port,
		}})
		w.add(&wished{place: inner, Link: Link{
			Kind: KindVeth, MTU: leg.MTU, MAC: leg.MAC, Addrs: leg.Addrs, Routes: hops(s.Routes, leg.Name),
			Neighbors: neighbors(leg.Neighbors),
		}})
	}
}

func hops(routes []Route, link string) (out []Hop) {
	for _, r := range routes {
		if r.Interface == link {
			out = append(out, Hop{Dst: r.Dst.Masked(), Via: r.Via, Table: r.Table})
		}
	}
	return out
}

func neighbors(of []Neighbor) (out []Neighbor) {
	for _, n := range of {
		out = append(out, Neighbor{n.Addr, strings.ToLower(n.MAC)})
	}
	return out
}

// uncovered returns routes on the link for the subnets that no address brings.
func uncovered(subnets, addrs []netip.Prefix) (out []Hop) {
	for _, s := range subnets {
		covered := false
		for _, a := range addrs {
			covered = covered || a.Masked() == s.Masked()
		}
		if !covered {
			out = append(out, Hop{Dst: s.Masked()})
		}
	}
	return out
}

// everything is the default route's destination in the family of addr.
func everything(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
