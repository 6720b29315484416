package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// The underlay of all but Shoal, which brings its own:
//
//	out .9 ──┐                  ┌── h1 .1, h2 .2    plain hosts: direct, HAProxy, a plain overlay
//	         ├── br0 in lan ────┼── r1 .21          the raw balancer's host
//	         │  10.96.1.0/24    └── w1 .11, w2 .12  hosts as Docker Swarm sets them up
//
// An overlay has a namespace on each of its hosts, with a bridge, a VXLAN link
// that was made in the host's namespace, and one end of each task's veth pair. All
// forwarding entries and neighbours are static and nothing is learnt, as in Swarm
// and in Shoal.
const (
	underlayMTU = 1500
	overlayMTU  = underlayMTU - 50
	vxlanPort   = 4789
)

// underlay is the address of a host, by the last byte.
func underlay(last int) string { return fmt.Sprintf("10.96.1.%d", last) }

// bridges keeps the bridges of a namespace from passing frames to its packet
// filter, where the kernel can do that at all: a switch has none.
func (s *site) bridges(namespace string) {
	s.run("nsenter", "--net="+namespace, "--", "sysctl", "-qew", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
}

// lan makes the namespace that joins the hosts.
func (s *site) lan() {
	s.namespace("lan")
	s.bridges(path("lan"))
	s.ip("lan", "link add br0 type bridge\nlink set br0 up\n")
}

// host makes a namespace with a cable into the lan.
func (s *site) host(name string, last int) {
	s.namespace(name)
	s.ip("lan", fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d netns %s\nlink set %s master br0 up\n",
		name, underlayMTU, underlayMTU, prefix+name, name))
	s.ip(name, fmt.Sprintf("addr add %s/24 dev eth0\nlink set eth0 up\n", underlay(last)))
}

// member is a namespace on an overlay.
type member struct {
	name string
	host int // which host of the overlay it is on
	last int // of its address
}

// overlay is a network over several hosts.
type overlay struct {
	name    string
	vni     int
	subnet  string // its first three bytes
	hosts   []string
	vteps   []string
	members []member
	// plain has bridges that are no filters; the kernel's default is otherwise.
	plain bool
}

func (o overlay) addr(last int) netip.Addr {
	return netip.MustParseAddr(fmt.Sprintf("%s.%d", o.subnet, last))
}

func (o overlay) mac(last int) string {
	a := o.addr(last).As4()
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
}

// at names the overlay's namespace on a host.
func (o overlay) at(host int) string { return fmt.Sprintf("%s%d", o.name, host+1) }

// overlay makes the overlay and its members.
func (s *site) overlay(o overlay) {
	for i, host := range o.hosts {
		at := o.at(i)
		s.namespace(at)
		s.sysctl(at, "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
		if o.plain {
			s.bridges(path(at))
		}
		s.ip(at, fmt.Sprintf("link add br0 type bridge mcast_snooping 0\nlink set br0 mtu %d up\n", overlayMTU))
		s.ip(host, fmt.Sprintf("link add vx%d netns %s mtu %d type vxlan id %d local %s dstport %d nolearning proxy\n",
			o.vni, prefix+at, overlayMTU, o.vni, o.vteps[i], vxlanPort))
		s.ip(at, fmt.Sprintf("link set vx%d master br0\nlink set vx%d type bridge_slave learning off flood off\nlink set vx%d up\n", o.vni, o.vni, o.vni))
	}
	for _, m := range o.members {
		s.member(o, m)
	}
	for i := range o.hosts {
		s.peers(o, i)
	}
}

func (s *site) member(o overlay, m member) {
	s.namespace(m.name)
	s.ip(o.at(m.host), fmt.Sprintf("link add %s mtu %d type veth peer name eth0 mtu %d address %s netns %s\nlink set %s master br0 up\n",
		m.name, overlayMTU, overlayMTU, o.mac(m.last), prefix+m.name, m.name))
	s.ip(m.name, fmt.Sprintf("addr add %s/24 dev eth0\nlink set eth0 up\n", o.addr(m.last)))
}

// peers tells a host where the members on other hosts are.
func (s *site) peers(o overlay, here int) {
	var neighbors, entries strings.Builder
	for _, m := range o.members {
		if m.host == here {
			continue
		}
		fmt.Fprintf(&neighbors, "neigh add %s lladdr %s dev vx%d nud permanent\n", o.addr(m.last), o.mac(m.last), o.vni)
		fmt.Fprintf(&entries, "fdb add %s dev vx%d dst %s self permanent\nfdb add %s dev vx%d master static\n",
			o.mac(m.last), o.vni, o.vteps[m.host], o.mac(m.last), o.vni)
	}
	s.ip(o.at(here), neighbors.String())
	s.feed(entries.String(), "bridge", "-n", prefix+o.at(here), "-batch", "-")
}

// cable joins two namespaces by a veth pair.
func (s *site) cable(a, linkA, addrA, b, linkB, addrB string) {
	s.ip(a, fmt.Sprintf("link add %s mtu %d type veth peer name %s mtu %d netns %s\n", linkA, underlayMTU, linkB, underlayMTU, prefix+b))
	if addrA != "" {
		s.ip(a, fmt.Sprintf("addr add %s dev %s\n", addrA, linkA))
	}
	s.ip(a, fmt.Sprintf("link set %s up\n", linkA))
	s.ip(b, fmt.Sprintf("addr add %s dev %s\nlink set %s up\n", addrB, linkB, linkB))
}
