//go:build lab

package wglink

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/bench/need"
	"shoal/overlay/netns"
	"shoal/overlay/wireguard"
)

// node is a host with a vault.
type node struct {
	t    testing.TB
	host string
	*Kernel
	number uint32
	six    bool // the underlay is IPv6
	keys   map[uint64]wireguard.Private
}

func underlay(number uint32) netip.Addr { return netip.AddrFrom4([4]byte{10, 66, 0, byte(number)}) }

func underlay6(number uint32) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd66::%d", number)) }

func (n *node) underlay() netip.Addr {
	if n.six {
		return underlay6(n.number)
	}
	return underlay(n.number)
}

// pair is two nodes whose kernel can encrypt.
func pair(t *testing.T) [2]*node {
	need.Feature(t, "wireguard", Probe(t.Context()))
	return hosts(t)
}

// hosts is two nodes whose hosts are joined by a veth pair.
func hosts(t *testing.T) (nodes [2]*node) {
	dir := t.TempDir()
	for i := range nodes {
		host := filepath.Join(dir, fmt.Sprintf("h%d", i+1))
		vault := filepath.Join(dir, fmt.Sprintf("vault%d", i+1))
		must(t, netns.Create(host))
		t.Cleanup(func() { _, _ = netns.Delete(vault), netns.Delete(host) })
		nodes[i] = &node{t: t, host: host, Kernel: &Kernel{Host: host, Path: vault}, number: uint32(i + 1), keys: map[uint64]wireguard.Private{}}
	}
	other, err := netns.Open(nodes[1].host)
	must(t, err)
	defer other.Close()
	must(t, netns.Do(nodes[0].host, func() error {
		veth := netlink.NewVeth(attrs("under", 1500))
		veth.PeerName, veth.PeerNamespace = "under", netlink.NsFd(other.Fd())
		return netlink.LinkAdd(veth)
	}))
	for _, n := range nodes {
		must(t, netns.Do(n.host, func() error {
			link, err := netlink.LinkByName("under")
			if err == nil {
				err = netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: underlay(n.number).AsSlice(), Mask: net.CIDRMask(24, 32)}})
			}
			if err == nil {
				err = netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: underlay6(n.number).AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD})
			}
			if err == nil {
				err = netlink.LinkSetUp(link)
			}
			return err
		}))
	}
	return nodes
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) key(epoch uint64) wireguard.Private {
	if _, ok := n.keys[epoch]; !ok {
		key, err := wireguard.NewPrivate(rand.Reader)
		must(n.t, err)
		n.keys[epoch] = key
	}
	return n.keys[epoch]
}

func (n *node) public(epoch uint64) wireguard.Key {
	key, err := n.key(epoch).Public()
	must(n.t, err)
	return key
}

// wish is a vault with devices of the epochs that sends through the last.
func (n *node) wish(other *node, epochs ...uint64) wireguard.Desired {
	d := wireguard.Desired{Namespace: n.Path, Addr: wireguard.Addr(n.number), MTU: 1500 - wireguard.Overhead(n.underlay())}
	for _, e := range epochs {
		d.Devices = append(d.Devices, wireguard.Device{
			Name: wireguard.DeviceName(e), Port: wireguard.Port(e), Public: n.public(e), Private: n.key(e),
			Peers: []wireguard.Peer{{Key: other.public(e), Endpoint: netip.AddrPortFrom(other.underlay(), wireguard.Port(e)),
				Addr: wireguard.Addr(other.number), Active: true}},
		})
		d.Routes = []wireguard.Route{{Addr: wireguard.Addr(other.number), Device: wireguard.DeviceName(e)}}
	}
	return d
}

// converge makes the vault what is wished, and returns what it took.
func (n *node) converge(d wireguard.Desired) []wireguard.Op {
	n.t.Helper()
	actual, err := n.Read(n.t.Context())
	must(n.t, err)
	ops := wireguard.Plan(d, actual, n.Path)
	must(n.t, n.Apply(n.t.Context(), ops))
	if actual, err = n.Read(n.t.Context()); err == nil {
		if rest := wireguard.Plan(d, actual, n.Path); len(rest) > 0 {
			n.t.Fatalf("after %v\nleft to do: %v", ops, rest)
		}
	}
	must(n.t, err)
	return ops
}

// echo answers in a vault until the test ends.
func (n *node) echo() {
	n.t.Helper()
	conn, err := netns.ListenPacket(n.t.Context(), n.Path, "udp4", netip.AddrPortFrom(wireguard.Addr(n.number), 7).String())
	must(n.t, err)
	n.t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			k, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buf[:k], from)
		}
	}()
}

func (n *node) reaches(other *node) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		conn, err := netns.Dial(ctx, n.Path, "udp4", netip.AddrPortFrom(wireguard.Addr(other.number), 7).String())
		must(n.t, err)
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		_, err = conn.Write([]byte("?"))
		if err == nil {
			_, err = conn.Read(make([]byte, 8))
		}
		conn.Close()
		if err == nil {
			return
		}
	}
	n.t.Fatalf("node %d does not reach node %d", n.number, other.number)
}

func TestVaultsReachEachOther(t *testing.T) {
	nodes := pair(t)
	a, b := nodes[0], nodes[1]
	a.converge(a.wish(b, 7))
	b.converge(b.wish(a, 7))
	b.echo()
	a.reaches(b)
	actual, err := a.Read(t.Context())
	must(t, err)
	if p := actual.Devices["wg7"].Peers[b.public(7)]; !p.Live || p.Keepalive != wireguard.Keepalive {
		t.Errorf("the peer that answered is %+v", p)
	}
	// A second epoch beside the first, then alone; then one that was missed.
	for _, epochs := range [][]uint64{{7, 8}, {8}, {10}} {
		a.converge(a.wish(b, epochs...))
		b.converge(b.wish(a, epochs...))
		a.reaches(b)
	}
	// The same over IPv6.
	a.six, b.six = true, true
	for _, n := range nodes {
		n.converge(wireguard.Desired{})
	}
	a.converge(a.wish(b, 11))
	b.converge(b.wish(a, 11))
	b.echo()
	a.reaches(b)
	if ops := a.converge(wireguard.Desired{}); len(ops) != 1 {
		t.Errorf("no vault takes %v", ops)
	}
}

func TestTrampledVaultHeals(t *testing.T) {
	nodes := pair(t)
	a, b := nodes[0], nodes[1]
	d := a.wish(b, 7, 8)
	a.converge(d)
	b.converge(b.wish(a, 7, 8))
	b.echo()
	on := func(name string, f func(netlink.Link) error) func() error {
		return func() error {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			return f(link)
		}
	}
	dummy := &netlink.Dummy{LinkAttrs: attrs("stray", 0)}
	for name, damage := range map[string]func() error{
		"a device is gone":    on("wg8", netlink.LinkDel),
		"a device is down":    on("wg8", netlink.LinkSetDown),
		"an MTU":              on("wg7", func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1300) }),
		"the loopback's down": on("lo", netlink.LinkSetDown),
		"a stray link":        func() error { return netlink.LinkAdd(dummy) },
		"a route":             on("wg8", func(l netlink.Link) error { return netlink.RouteDel(route(l, wireguard.Addr(2))) }),
		"a setting":           func() error { return nil },
	} {
		must(t, netns.Do(a.Path, damage))
		if name == "a setting" {
			must(t, a.Apply(t.Context(), []wireguard.Op{wireguard.SetSysctl{Key: "net.ipv4.conf.all.rp_filter", Value: "1"}}))
		}
		if ops := a.converge(d); len(ops) == 0 {
			t.Errorf("%s: nothing was done", name)
		}
		a.reaches(b)
	}
	must(t, a.Apply(t.Context(), []wireguard.Op{wireguard.DelPeer{Device: "wg8", Key: b.public(8)}}))
	if ops := a.converge(d); len(ops) != 1 {
		t.Errorf("a peer that was taken away: %v", ops)
	}
	a.reaches(b)
}

func TestATakenPortIsNamed(t *testing.T) {
	a := pair(t)[0]
	taken, err := netns.ListenPacket(t.Context(), a.host, "udp4", fmt.Sprintf("0.0.0.0:%d", wireguard.Port(7)))
	must(t, err)
	defer taken.Close()
	err = a.Apply(t.Context(), wireguard.Plan(a.wish(a, 7), wireguard.Actual{}, a.Path))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("UDP port %d of this node is taken", wireguard.Port(7))) {
		t.Errorf("a taken port: %v", err)
	}
}

func TestManyPeers(t *testing.T) {
	const peers = 1000
	nodes := pair(t)
	a := nodes[0]
	d := a.wish(nodes[1], 7)
	for i := range peers {
		number := uint32(10 + i)
		d.Devices[0].Peers = append(d.Devices[0].Peers, wireguard.Peer{
			Key: wireguard.Key{1, byte(i), byte(i >> 8), 9}, Addr: wireguard.Addr(number),
			Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 66, byte(i >> 8), byte(i)}), wireguard.Port(7)),
		})
	}
	start := time.Now()
	a.converge(d)
	t.Logf("%d peers made in %v", peers, time.Since(start))
	start = time.Now()
	actual, err := a.Read(t.Context())
	must(t, err)
	if n := len(actual.Devices["wg7"].Peers); n != peers+1 {
		t.Errorf("%d peers are read", n)
	}
	t.Logf("and read in %v", time.Since(start))
}
