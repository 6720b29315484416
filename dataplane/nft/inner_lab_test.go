//go:build lab

package nft_test

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/bench/need"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
	"shoal/overlay/netns"
)

// innerLab is a node with a task behind its bridge and a balancer behind its mesh
// link, and a neighbour that knows routes to both and is a member:
//
//	outer 10.7.0.9 --- 10.7.0.1 node br0 172.30.0.1 --- 172.30.0.2 task
//	                            node slx 169.254.128.1 --- 169.254.128.2 mesh
type innerLab struct {
	outer, node, task, mesh string
}

func newInnerLab(t *testing.T) innerLab {
	t.Helper()
	l := innerLab{room(t, "outer"), room(t, "node"), room(t, "task"), room(t, "mesh")}
	run(t, l.node,
		"ip link add up0 type veth peer name up0 netns "+filepath.Base(l.outer), "ip addr add 10.7.0.1/24 dev up0",
		"ip addr add fd07::1/64 dev up0 nodad", "ip link set up0 up",
		"ip link add br0 type bridge", "ip addr add 172.30.0.1/24 dev br0", "ip addr add fd30::1/64 dev br0 nodad", "ip link set br0 up",
		"ip link add p1 type veth peer name eth0 netns "+filepath.Base(l.task), "ip link set p1 master br0", "ip link set p1 up",
		"ip link set p1 type bridge_slave hairpin on",
		"ip link add slx type veth peer name lb0 netns "+filepath.Base(l.mesh), "ip addr add 169.254.128.1/30 dev slx",
		"ip addr add fd33::1/126 dev slx nodad", "ip link set slx up",
		// Nothing but the table keeps out who forges a source.
		"sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.br0.rp_filter=0 net.ipv4.conf.slx.rp_filter=0")
	run(t, l.outer, "ip addr add 10.7.0.9/24 dev up0", "ip addr add fd07::9/64 dev up0 nodad", "ip link set up0 up",
		"ip route add 172.30.0.0/24 via 10.7.0.1", "ip route add 169.254.128.0/30 via 10.7.0.1",
		"ip route add fd30::/64 via fd07::1", "ip route add fd33::/126 via fd07::1")
	run(t, l.task, "ip addr add 172.30.0.2/24 dev eth0", "ip addr add fd30::2/64 dev eth0 nodad", "ip link set eth0 up",
		"ip route add default via 172.30.0.1", "ip route add default via fd30::1")
	run(t, l.mesh, "ip addr add 169.254.128.2/30 dev lb0", "ip addr add fd33::2/126 dev lb0 nodad", "ip link set lb0 up",
		"ip route add default via 169.254.128.1", "ip route add default via fd33::1")
	return l
}

func (l innerLab) wish() lb.Translation {
	p, a, ap := netip.MustParsePrefix, netip.MustParseAddr, netip.MustParseAddrPort
	wish := lb.Translation{Namespace: l.node, Passing: []string{"br0", "slx"},
		Masquerade: []lb.Egress{{Source: p("172.30.0.0/24"), Bridge: "br0"}, {Source: p("fd30::/64"), Bridge: "br0"}},
		Inner:      []lb.Inner{{Prefix: p("169.254.128.0/30"), Link: "slx"}, {Prefix: p("fd33::/126"), Link: "slx"}},
		Members:    &lb.Members{Port: 4789, Addrs: []netip.Addr{a("10.7.0.1"), a("10.7.0.9"), a("fd07::1"), a("fd07::9")}}}
	for _, proto := range []lb.Protocol{lb.TCP, lb.UDP} {
		for _, f := range []struct {
			port uint16
			to   string
		}{{8080, "169.254.128.2:80"}, {8080, "[fd33::2]:80"}, {8081, "172.30.0.2:80"}, {8081, "[fd30::2]:80"}} {
			wish.Forwards = append(wish.Forwards, lb.Forward{Protocol: proto, Port: f.port, To: ap(f.to), Name: "web"})
		}
	}
	return wish
}

// TestLabInner: inner addresses are nobody's affair outside, whatever routes a
// neighbour has, and the mesh link's none of a task's; a task's datagrams pass
// nowhere for a member's; what is published, answered and masqueraded goes on.
func TestLabInner(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	l := newInnerLab(t)
	for _, where := range []string{"[::]:80", "[::]:81"} {
		echo(t, l.task, where)
		echo(t, l.mesh, where)
	}
	echo(t, l.outer, "[::]:90")
	own, other := heard(t, l.node, "[::]:4789"), heard(t, l.outer, "[::]:4789")
	wish := l.wish()
	d := nft.New()
	translate(t, d, wish)
	have, err := d.ReadTranslation(context.Background(), l.node)
	if err != nil || !reflect.DeepEqual(have.Inner, wish.Inner) {
		t.Errorf("read back inner %v, %v; want %v", have.Inner, err, wish.Inner)
	}
	l.open(t)
	l.shut(t, "at first")
	l.noFrames(t, "at first", own, other)
	for _, damage := range []string{"nft flush chain inet shoal_nat guard", "nft flush chain inet shoal_nat members"} {
		run(t, l.node, damage)
		if n := translate(t, nft.New(), wish); n == 0 {
			t.Errorf("%s: nothing was healed", damage)
		}
		l.shut(t, "after "+damage)
		l.noFrames(t, "after "+damage, own, other)
	}
	wish.Inner = nil
	if n := translate(t, d, wish); n != 2 {
		t.Errorf("without inner prefixes %d changed, want 2", n)
	}
	if _, _, err := askAs(l.outer, "tcp", "", "169.254.128.2:81"); err != nil {
		t.Errorf("the test's neighbour has no way to the mesh link: %v", err)
	}
}

// open checks what must go on.
func (l innerLab) open(t *testing.T) {
	t.Helper()
	for _, row := range []struct{ from, to, seen string }{
		{l.outer, "10.7.0.1:8080", "10.7.0.9"}, {l.outer, "[fd07::1]:8080", "fd07::9"},
		{l.outer, "10.7.0.1:8081", "10.7.0.9"}, {l.outer, "[fd07::1]:8081", "fd07::9"},
		{l.task, "10.7.0.9:90", "10.7.0.1"}, {l.task, "[fd07::9]:90", "fd07::1"},
		{l.task, "10.7.0.1:8080", "169.254.128.1"}, {l.task, "[fd07::1]:8080", "fd33::1"},
		{l.task, "172.30.0.1:8080", "169.254.128.1"}, {l.task, "[fd30::1]:8080", "fd33::1"},
		{l.task, "10.7.0.1:8081", "172.30.0.1"}, {l.task, "[fd07::1]:8081", "fd30::1"},
		{l.node, "172.30.0.2:81", "172.30.0.1"}, {l.node, "[fd30::2]:81", "fd30::1"},
		{l.node, "169.254.128.2:81", "169.254.128.1"}, {l.node, "[fd33::2]:81", "fd33::1"},
		{l.node, "127.0.0.1:8080", "169.254.128.1"}, {l.node, "[::1]:8080", "fd33::1"}, {l.node, "172.30.0.1:8080", "169.254.128.1"},
	} {
		for _, proto := range []string{"tcp", "udp"} {
			if seen, err := ask(row.from, proto, row.to); err != nil || seen != row.seen {
				t.Errorf("%s from %s to %s: seen as %q, %v; want %q", proto, filepath.Base(row.from), row.to, seen, err, row.seen)
			}
		}
	}
}

// shut checks that nobody outside gets an answer from an inner address.
func (l innerLab) shut(t *testing.T, when string) {
	t.Helper()
	for _, row := range []struct{ from, to string }{
		{l.outer, "172.30.0.2:81"}, {l.outer, "[fd30::2]:81"}, {l.outer, "169.254.128.2:80"}, {l.outer, "[fd33::2]:80"},
		{l.outer, "172.30.0.1:8080"}, {l.task, "169.254.128.2:80"}, {l.task, "[fd33::2]:80"}, {l.mesh, "172.30.0.2:81"},
	} {
		for _, proto := range []string{"tcp", "udp"} {
			if seen, _, err := askAs(row.from, proto, "", row.to); err == nil {
				t.Errorf("%s: %s from %s to %s is answered, seen as %s", when, proto, filepath.Base(row.from), row.to, seen)
			}
		}
	}
}

// heard returns what datagrams say that arrive at a port.
func heard(t *testing.T, ns, where string) <-chan string {
	t.Helper()
	p, err := netns.ListenPacket(context.Background(), ns, "udp", where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	out := make(chan string, 64)
	go func() {
		buf := make([]byte, 64)
		for {
			n, _, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			out <- string(buf[:n])
		}
	}()
	return out
}

// utter sends a datagram from any address, be it the namespace's own or not.
func utter(t *testing.T, ns, from, to, text string) {
	t.Helper()
	transparent := func(network, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); network == "udp6" {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
			}
		})
		return err
	}
	d := net.Dialer{Timeout: time.Second, Control: transparent}
	if from != "" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	var c net.Conn
	if err := netns.Do(ns, func() (err error) {
		c, err = d.Dial("udp", to)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// noFrames checks that members hear each other at the data path's port, and that no
// datagram out of the node's inner links gets to one, under whatever address.
func (l innerLab) noFrames(t *testing.T, when string, own, other <-chan string) {
	t.Helper()
	for _, row := range []struct{ ns, from, to string }{
		{l.task, "", "10.7.0.9:4789"}, {l.task, "", "[fd07::9]:4789"}, {l.task, "", "10.7.0.1:4789"},
		{l.task, "10.7.0.9", "10.7.0.1:4789"}, {l.task, "fd07::9", "[fd07::1]:4789"}, {l.task, "10.7.0.9", "172.30.0.1:4789"},
		{l.task, "10.7.0.1", "10.7.0.9:4789"},
		{l.mesh, "", "10.7.0.9:4789"}, {l.mesh, "10.7.0.9", "10.7.0.1:4789"}, {l.mesh, "fd07::9", "[fd07::1]:4789"},
	} {
		utter(t, row.ns, row.from, row.to, "forged from "+filepath.Base(row.ns)+" as "+row.from+" to "+row.to)
	}
	for _, row := range []struct {
		ns, to string
		at     <-chan string
	}{{l.outer, "10.7.0.1:4789", own}, {l.outer, "[fd07::1]:4789", own}, {l.node, "10.7.0.9:4789", other}, {l.node, "[fd07::9]:4789", other}} {
		// What was forged was sent before, and would have come before.
		utter(t, row.ns, "", row.to, "member")
		for patience := time.After(2 * time.Second); ; {
			var text string
			select {
			case text = <-row.at:
			case <-patience:
				t.Errorf("%s: %s hears nothing of a member", when, row.to)
			}
			if text == "member" || text == "" {
				break
			}
			t.Errorf("%s: %s hears what was %s", when, row.to, text)
		}
	}
}
