//go:build lab

package rtnl

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"shoal/overlay/netns"
	"shoal/overlay/vxlan"
)

var balancers = netip.MustParsePrefix("169.254.64.0/18")

func balancerAddr(host int) netip.Addr { return netip.AddrFrom4([4]byte{169, 254, 64, byte(host)}) }

// balance makes the network of a host one that balances, on both hosts.
func (h *node) balance(host, hosts int) {
	n := &h.desired.Networks[0]
	n.Balancer = &vxlan.Balancer{
		Addrs: []netip.Prefix{netip.PrefixFrom(balancerAddr(host), balancers.Bits())}, MAC: fmt.Sprintf("02:42:a9:fe:40:%02x", host),
		HostAddrs: prefixes("169.254.128.1/30", "fd99::1/126"), PeerAddrs: prefixes("169.254.128.2/30", "fd99::2/126"),
	}
	for other := 1; other <= hosts; other++ {
		if other != host {
			n.Peers = append(n.Peers, vxlan.Peer{
				Addrs: []netip.Addr{balancerAddr(other)}, MAC: fmt.Sprintf("02:42:a9:fe:40:%02x", other),
				VTEP: netip.AddrFrom4([4]byte{10, 77, 9, byte(other)}),
			})
		}
	}
	for i := range h.desired.Sandboxes {
		s := &h.desired.Sandboxes[i]
		s.Routes = append(s.Routes, vxlan.Route{Dst: balancers, Interface: "eth0"})
	}
}

func TestBalancerIsAnEndpoint(t *testing.T) {
	a, b := pair(t)
	for i, h := range []*node{a, b} {
		h.balance(i+1, 2)
		ops := h.converge()
		if strings.Contains(text(ops), "link del") {
			t.Errorf("making a network balance deletes links:\n%s", text(ops))
		}
	}
	net := a.desired.Networks[0].Namespace
	echo(t, net)
	for _, task := range []netip.Addr{taskAddrs(1, 1)[0], taskAddrs(2, 2)[0]} {
		reaches(t, net, "tcp", task, 64) // from the namespace's own address, link-local
	}
	reaches(t, b.sandbox(1), "tcp", balancerAddr(1), 64)
	reaches(t, a.sandbox(1), "tcp", balancerAddr(1), 64)
	reaches(t, a.host, "tcp", netip.MustParseAddr("169.254.128.2"), 64)
	reaches(t, a.host, "tcp", netip.MustParseAddr("fd99::2"), 64)
	// The node forwards IPv6 now, and heeds its routers as before.
	if err := netns.Do(a.host, func() error {
		raw, err := os.ReadFile("/proc/sys/net/ipv6/conf/default/accept_ra")
		if err == nil && strings.TrimSpace(string(raw)) != "2" {
			err = fmt.Errorf("accept_ra is %s", raw)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	reaches(t, net, "tcp", a.vtep, 64) // what it does not know goes to the host
	// Another process, another network id: the veth pair moves without a clash.
	a.fresh()
	a.desired.Networks[0].ID = "renamed"
	for i := range a.desired.Sandboxes {
		a.desired.Sandboxes[i].Interfaces[0].NetworkID = "renamed"
	}
	a.converge()
	reaches(t, a.host, "tcp", netip.MustParseAddr("169.254.128.2"), 64)
	reaches(t, a.host, "tcp", netip.MustParseAddr("fd99::2"), 64)
	// No longer a balancer.
	a.desired.Networks[0].Balancer = nil
	a.converge()
	reaches(t, a.sandbox(1), "udp", taskAddrs(2, 1)[0], 64)
}

func TestNetworkMovesToAnotherNamespace(t *testing.T) {
	a, _ := pair(t)
	a.desired.Networks[0].Namespace = a.dir + "/net-moved"
	a.converge()
	reaches(t, a.sandbox(1), "udp", taskAddrs(2, 1)[0], 64)
}

func TestRemovedNetworkIsAtOnceMadeAgain(t *testing.T) {
	a, _ := pair(t)
	wish := a.desired
	for range 10 {
		a.desired = vxlan.Desired{}
		a.converge()
		a.desired = wish
		a.converge()
	}
	reaches(t, a.sandbox(1), "udp", taskAddrs(2, 1)[0], 64)
}

func TestCostOfPeers(t *testing.T) {
	const peers = 5000
	h := hosts(t, 1, 1500)[0]
	h.wish(1, 1, 1, 1450)
	n := &h.desired.Networks[0]
	for i := range peers {
		n.Peers = append(n.Peers, vxlan.Peer{
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 20, byte(128 + i>>8), byte(i)})},
			MAC:   fmt.Sprintf("02:42:00:00:%02x:%02x", i>>8, i&255), VTEP: netip.AddrFrom4([4]byte{10, 77, 9, byte(2 + i%200)}),
		})
	}
	start := time.Now()
	actual, err := h.kernel.Read(t.Context(), h.desired)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.kernel.Apply(t.Context(), vxlan.Plan(h.desired, actual)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d peers made in %v", peers, time.Since(start))
	n.Peers[7].VTEP = netip.AddrFrom4([4]byte{10, 77, 9, 250})
	start = time.Now()
	link, ok, err := h.kernel.ReadPeers(t.Context(), *n)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	ops := vxlan.PlanPeers(*n, link)
	if err := h.kernel.Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	if len(ops) != 1 {
		t.Errorf("one peer moved, and the plan is\n%s", text(ops))
	}
	t.Logf("one of %d peers changed in %v", peers, time.Since(start))
	if rest := h.plan(); len(rest) != 0 {
		t.Errorf("left to do:\n%s", text(rest))
	}
	h.desired = vxlan.Desired{}
	h.converge()
}

func TestUnderlayOfIPv6(t *testing.T) {
	a, b := pair(t)
	vtep := func(host int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fd77::%d", host)) }
	for i, h := range []*node{a, b} {
		n := &h.desired.Networks[0]
		n.Local, n.MTU = vtep(i+1), 1430 // 20 bytes more of outer header
		for p := range n.Peers {
			n.Peers[p].VTEP = vtep(2 - i)
		}
		for s := range h.desired.Sandboxes {
			h.desired.Sandboxes[s].Interfaces[0].MTU = 1430
		}
		h.converge()
	}
	reaches(t, a.sandbox(1), "udp", taskAddrs(2, 1)[0], 1430-28)
	reaches(t, b.sandbox(2), "tcp", taskAddrs(1, 2)[1], 100_000)
}
