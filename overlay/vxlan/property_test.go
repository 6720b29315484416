package vxlan_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"shoal/overlay/vxlan"
	"shoal/overlay/vxlan/vxlantest"
)

func text(ops []vxlan.Op) string {
	var b strings.Builder
	for _, op := range ops {
		fmt.Fprintln(&b, op)
	}
	return b.String()
}

func peerMAC(n int) string { return fmt.Sprintf("02:42:00:00:00:%02x", n) }

// drawDesired draws a small node: VNIs move between networks, tasks between
// networks, the balancer comes and goes.
func drawDesired(t *rapid.T) vxlan.Desired {
	var d vxlan.Desired
	if rapid.Bool().Draw(t, "gateway") {
		addr := rapid.SampledFrom([]string{"172.18.0.1/16", "172.18.0.2/16", "172.19.0.1/16"}).Draw(t, "gateway addr")
		d.Gateway = &vxlan.Gateway{Name: "shoal_gw", Addrs: prefixes(addr), MTU: mtu(t)}
	}
	vnis := rapid.Permutation([]uint32{4096, 4097, 4098}).Draw(t, "vnis")
	count := rapid.IntRange(0, 3).Draw(t, "networks")
	for i := range count {
		d.Networks = append(d.Networks, drawNetwork(t, i, vnis[i]))
	}
	if count > 0 && rapid.Bool().Draw(t, "balancer") {
		d.Networks[0].Balancer = &vxlan.Balancer{
			Addrs: drawAddrs(t, "balancer", "169.254.64.%d/18"), MAC: peerMAC(rapid.IntRange(1, 3).Draw(t, "mac")),
			HostAddrs: prefixes("169.254.128.1/30", "fd99::1/126"), PeerAddrs: prefixes("169.254.128.2/30", "fd99::2/126"),
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "sandboxes") {
		d.Sandboxes = append(d.Sandboxes, drawSandbox(t, i))
	}
	return d
}

func mtu(t *rapid.T) int { return rapid.SampledFrom([]int{1400, 1450}).Draw(t, "mtu") }

func drawAddrs(t *rapid.T, label, format string) (out []netip.Prefix) {
	for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(1, 4), 1, 3, rapid.ID).Draw(t, label) {
		out = append(out, netip.MustParsePrefix(fmt.Sprintf(format, n)))
	}
	return out
}

func drawNetwork(t *rapid.T, i int, vni uint32) vxlan.Network {
	n := vxlan.Network{
		ID: fmt.Sprint("n", i), Namespace: fmt.Sprint("/ns/net-", i), VNI: vni,
		Underlay: rapid.SampledFrom([]string{"", "", "/ns/vault"}).Draw(t, "underlay"),
		Local:    netip.MustParseAddr("10.77.0.1"), Port: rapid.SampledFrom([]uint16{4789, 4790}).Draw(t, "port"),
		MTU: mtu(t), Subnets: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i))},
		SoftwareChecksums: rapid.Bool().Draw(t, "software checksums"),
	}
	if rapid.Bool().Draw(t, "endpoint itself") {
		n.MAC, n.Addrs = peerMAC(20+i), drawAddrs(t, "own addrs", fmt.Sprintf("10.0.%d", i)+".%d/24")
	}
	for range rapid.IntRange(0, 5).Draw(t, "peers") {
		host := rapid.IntRange(1, 3).Draw(t, "peer's host")
		number := rapid.IntRange(1, 6).Draw(t, "peer")
		n.Peers = append(n.Peers, vxlan.Peer{
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i), byte(number)})},
			MAC:   strings.ToUpper(peerMAC(rapid.IntRange(1, 6).Draw(t, "peer's mac"))), VTEP: netip.AddrFrom4([4]byte{10, 77, 0, byte(host)}),
		})
	}
	return n
}

func drawSandbox(t *rapid.T, i int) vxlan.Sandbox {
	s := vxlan.Sandbox{ID: fmt.Sprint("t", i), Namespace: fmt.Sprint("/ns/task-", i)}
	for leg := range rapid.IntRange(0, 3).Draw(t, "legs") {
		s.Interfaces = append(s.Interfaces, vxlan.Interface{
			Name: fmt.Sprint("eth", leg), MTU: mtu(t), MAC: peerMAC(10 + leg),
			NetworkID: rapid.SampledFrom([]string{"", "n0", "n1", "n2"}).Draw(t, "network"),
			Addrs:     drawAddrs(t, "addrs", fmt.Sprintf("10.%d.%d", 8+leg, i)+".%d/24"),
		})
		if rapid.Bool().Draw(t, "return path") && len(s.Rules) == 0 {
			s.Interfaces[leg].Neighbors = []vxlan.Neighbor{{Addr: returnVia, MAC: strings.ToUpper(peerMAC(rapid.IntRange(1, 2).Draw(t, "gateway's mac")))}}
			s.Rules = []vxlan.Rule{{Mark: 0x50ea0000, Mask: 0xffff0000, Table: rapid.SampledFrom([]uint32{8300, 8301}).Draw(t, "table"), Six: rapid.Bool().Draw(t, "six")}}
			s.Routes = append(s.Routes, vxlan.Route{Dst: netip.MustParsePrefix("169.254.64.0/18"), Interface: fmt.Sprint("eth", leg)}, vxlan.Route{
				Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: returnVia, Interface: fmt.Sprint("eth", leg), Table: s.Rules[0].Table})
		}
		if rapid.Bool().Draw(t, "default route") && !slices.ContainsFunc(s.Routes, isDefault) {
			s.Routes = append(s.Routes, vxlan.Route{
				Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.AddrFrom4([4]byte{10, byte(8 + leg), byte(i), 254}), Interface: fmt.Sprint("eth", leg),
			})
		}
	}
	return s
}

// returnVia is a gateway that no address of a link covers.
var returnVia = netip.MustParseAddr("169.254.64.0")

func isDefault(r vxlan.Route) bool { return r.Dst.Bits() == 0 && r.Table == 0 }

// trample changes the kernel by hand; what the kernel refuses is not done.
func trample(t *rapid.T, k *vxlantest.Kernel) {
	for range rapid.IntRange(0, 6).Draw(t, "tramplings") {
		if spaces := k.Namespaces(); len(spaces) > 0 && rapid.IntRange(0, 5).Draw(t, "vanish") == 0 {
			k.Vanish(rapid.SampledFrom(spaces).Draw(t, "namespace"))
			continue
		}
		links := k.Links()
		if len(links) == 0 {
			return
		}
		ns, name, _ := strings.Cut(rapid.SampledFrom(links).Draw(t, "link"), " ")
		addr := netip.MustParsePrefix(rapid.SampledFrom([]string{"10.8.0.1/24", "10.8.0.9/24", "172.18.0.9/16", "1.2.3.4/8"}).Draw(t, "addr"))
		peer := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(1, 9).Draw(t, "neighbour"))})
		mac := peerMAC(rapid.IntRange(1, 9).Draw(t, "mac"))
		tunnelNS := ns // a vxlan link made inside a task's namespace has that namespace's sockets
		if strings.Contains(ns, "task") {
			tunnelNS = ""
		}
		hop := vxlan.Hop{Dst: netip.MustParsePrefix("0.0.0.0/0")}
		op := rapid.SampledFrom([]vxlan.Op{
			vxlan.DelLink{Namespace: ns, Name: name},
			vxlan.AddBridge{Namespace: ns, Name: "stray"},
			vxlan.AddBridge{Namespace: ns, Name: "vx4096"},
			vxlan.AddVeth{Namespace: ns, Name: "sv0123456789ab", PeerName: "eth0", PeerNamespace: "/ns/task-0"},
			vxlan.AddVXLAN{Namespace: tunnelNS, Name: "vx4098", Tunnel: vxlan.Tunnel{VNI: 4098, Port: 4789}},
			vxlan.SetLink{Namespace: ns, Name: name, MTU: 1300},
			vxlan.SetLink{Namespace: ns, Name: name, MAC: "02:00:00:00:99:99"},
			vxlan.SetLink{Namespace: ns, Name: name, Master: "stray"},
			vxlan.SetPort{Namespace: ns, Name: name},
			vxlan.SetAddr{Namespace: ns, Link: name, Addr: addr},
			vxlan.DelAddr{Namespace: ns, Link: name, Addr: addr},
			vxlan.SetRoute{Namespace: ns, Link: name, Hop: hop},
			vxlan.DelRoute{Namespace: ns, Link: name, Hop: hop},
			vxlan.SetForward{Namespace: ns, Link: name, Forward: vxlan.Forward{MAC: mac, VTEP: peer}},
			vxlan.SetStatic{Namespace: ns, Link: name, MAC: mac},
			vxlan.DelStatic{Namespace: ns, Link: name, MAC: mac},
			vxlan.SetNeighbor{Namespace: ns, Link: name, Neighbor: vxlan.Neighbor{Addr: peer, MAC: mac}},
			vxlan.SetSysctl{Namespace: ns, Key: "net.ipv4.ip_forward", Value: "0"},
			vxlan.SetNeighbor{Namespace: ns, Link: name, Neighbor: vxlan.Neighbor{Addr: returnVia, MAC: mac}},
			vxlan.DelRule{Namespace: "/ns/task-0", Rule: vxlan.Rule{Mark: 0x50ea0000, Mask: 0xffff0000, Table: 8300}},
			vxlan.SetRule{Namespace: "/ns/task-0", Rule: vxlan.Rule{Mark: 1, Mask: 1, Table: 8302}},
		}).Draw(t, "op")
		_ = k.Apply(context.Background(), []vxlan.Op{op})
	}
}

// settle plans and applies once; the next plan must be empty.
func settle(t *rapid.T, k *vxlantest.Kernel, d vxlan.Desired) {
	for _, s := range d.Sandboxes {
		if !slices.Contains(k.Namespaces(), s.Namespace) {
			k.AddSandbox(s.Namespace)
		}
	}
	converge(t, k, d)
}

func converge(t *rapid.T, k *vxlantest.Kernel, d vxlan.Desired) {
	before, _ := k.Read(context.Background(), d)
	ops := vxlan.Plan(d, before)
	if err := k.Apply(context.Background(), ops); err != nil {
		t.Fatalf("%v\nin the plan\n%s", err, text(ops))
	}
	after, _ := k.Read(context.Background(), d)
	if rest := vxlan.Plan(d, after); len(rest) != 0 {
		t.Fatalf("left to do:\n%s\nafter the plan\n%s", text(rest), text(ops))
	}
}

func TestPlanConvergesFromAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := vxlantest.New()
		d := drawDesired(t)
		settle(t, k, d)
		for range rapid.IntRange(0, 3).Draw(t, "rounds") {
			trample(t, k)
			if rapid.Bool().Draw(t, "new wish") {
				d = drawDesired(t)
				settle(t, k, d)
			} else {
				converge(t, k, d) // also where a sandbox lost its namespace
			}
		}
		d = vxlan.Desired{}
		converge(t, k, d)
		for _, ns := range k.Namespaces() {
			if strings.Contains(ns, "net-") {
				t.Errorf("left over: %s", ns)
			}
		}
	})
}

func TestPlanResumesAfterAnyFailure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, d := vxlantest.New(), drawDesired(t)
		for _, s := range d.Sandboxes {
			k.AddSandbox(s.Namespace)
		}
		actual, _ := k.Read(context.Background(), d)
		ops := vxlan.Plan(d, actual)
		if len(ops) == 0 {
			return
		}
		k.FailAt, k.Failure = rapid.IntRange(1, len(ops)).Draw(t, "fails at"), context.DeadlineExceeded
		_ = k.Apply(context.Background(), ops)
		converge(t, k, d)
	})
}

func TestPlanPeersFollowsPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := vxlantest.New()
		n := drawNetwork(t, 0, 4096)
		settle(t, k, vxlan.Desired{Networks: []vxlan.Network{n}})
		n.Peers = drawNetwork(t, 0, 4096).Peers
		d := vxlan.Desired{Networks: []vxlan.Network{n}}
		actual, _ := k.Read(context.Background(), d)
		ops := vxlan.PlanPeers(n, actual.Namespaces[n.Namespace].Links[vxlan.TunnelName(n.VNI)])
		if whole := vxlan.Plan(d, actual); !slices.Equal(whole, ops) {
			t.Fatalf("PlanPeers:\n%s\nPlan:\n%s", text(ops), text(whole))
		}
	})
}

// TestPlanLeavesAloneWhatItCannotRead: nothing is done in a namespace that could not
// be read, nothing that is there is cleared because its other end is in one, and all
// else is put right.
func TestPlanLeavesAloneWhatItCannotRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, d := vxlantest.New(), drawDesired(t)
		settle(t, k, d)
		if len(k.Namespaces()) == 0 {
			return
		}
		dark := rapid.SampledFrom(k.Namespaces()).Draw(t, "unreadable")
		k.Unreadable[dark] = fs.ErrPermission
		actual, _ := k.Read(context.Background(), d)
		if ops := vxlan.Plan(d, actual); len(ops) > 0 {
			t.Fatalf("nothing changed, and without %s the plan is\n%s", dark, text(ops))
		}
		trample(t, k)
		if !slices.Contains(k.Namespaces(), dark) {
			return
		}
		actual, _ = k.Read(context.Background(), d)
		for _, op := range vxlan.Plan(d, actual) {
			if at := vxlan.Touches(op); at[0] == dark {
				t.Fatalf("planned in %s: %s", dark, op)
			}
		}
		delete(k.Unreadable, dark)
		converge(t, k, d)
	})
}

func TestLags(t *testing.T) {
	const ns = "/ns/net-0"
	for _, tt := range []struct {
		op   vxlan.Op
		want bool
	}{
		{vxlan.DelForward{Namespace: ns, Link: "vx4096"}, true},
		{vxlan.SetNeighbor{Namespace: ns, Link: "vx4096"}, true},
		{vxlan.SetLink{Namespace: ns, Name: "vx4096", MTU: 1400}, true}, // its entries wait for it
		{vxlan.DelLink{Namespace: ns, Name: "vx4096"}, true},
		{vxlan.DelNamespace{Path: ns}, true},
		{vxlan.AddVXLAN{Namespace: ns, Name: "vx4096"}, false}, // nothing leaves without it
		{vxlan.SetLink{Namespace: ns, Name: "sv0123456789ab", Up: true}, false},
		{vxlan.SetNeighbor{Namespace: "/ns/task-0", Link: "eth0"}, false},
		{vxlan.AddVeth{Namespace: ns, Name: "sv0123456789ab", PeerNamespace: "/ns/task-0"}, false},
	} {
		if path, lags := vxlan.Lags(tt.op); lags != tt.want || lags && path != ns {
			t.Errorf("%s: %q %v", tt.op, path, lags)
		}
	}
}
