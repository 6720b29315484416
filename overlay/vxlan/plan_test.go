package vxlan_test

import (
	"context"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"shoal/overlay/vxlan"
	"shoal/overlay/vxlan/vxlantest"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// example is a node with an ingress network that balances, an ordinary
// network, and one task on both and the gateway.
func example() vxlan.Desired {
	return vxlan.Desired{
		Gateway: &vxlan.Gateway{Name: "shoal_gw", Addrs: prefixes("172.18.0.1/16", "fd98::1/64"), MTU: 1500},
		Networks: []vxlan.Network{
			{
				ID: "ingress", Namespace: "/run/shoal/net-ingress", VNI: 4096, MTU: 1450,
				Local: netip.MustParseAddr("10.77.0.1"), Port: 4789, Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")},
				Balancer: &vxlan.Balancer{
					Addrs: []netip.Prefix{netip.MustParsePrefix("169.254.64.1/18")}, MAC: "02:42:a9:fe:40:01",
					HostAddrs: prefixes("169.254.128.1/30", "fd99::1/126"), PeerAddrs: prefixes("169.254.128.2/30", "fd99::2/126"),
				},
			},
			{
				ID: "app", Namespace: "/run/shoal/net-app", VNI: 4097, MTU: 1450,
				Local: netip.MustParseAddr("10.77.0.1"), Port: 4789, Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")},
				Peers: []vxlan.Peer{
					{Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.7"), netip.MustParseAddr("fd00:1::7")}, MAC: "02:42:0A:00:01:07", VTEP: netip.MustParseAddr("10.77.0.2")},
					{Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.8")}, MAC: "02:42:0a:00:01:08", VTEP: netip.MustParseAddr("10.77.0.1")}, // our own
					{Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.9")}, MAC: "02:42:0a:00:01:09", VTEP: netip.MustParseAddr("fd77::9")},   // out of reach
				},
			},
		},
		Sandboxes: []vxlan.Sandbox{{
			ID: "task1", Namespace: "/run/shoal/task-1",
			Interfaces: []vxlan.Interface{
				{Name: "eth0", NetworkID: "app", MAC: "02:42:0a:00:01:05", Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.1.5/24")}, MTU: 1450},
				{Name: "eth1", MAC: "02:42:ac:12:00:02", Addrs: []netip.Prefix{netip.MustParsePrefix("172.18.0.2/16")}, MTU: 1500},
			},
			Routes: []vxlan.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.18.0.1"), Interface: "eth1"}},
		}},
	}
}

// kernel returns one that has what the example wishes.
func kernel(t *testing.T, d vxlan.Desired) *vxlantest.Kernel {
	t.Helper()
	k := vxlantest.New()
	for _, s := range d.Sandboxes {
		k.AddSandbox(s.Namespace)
	}
	next(t, k, d)
	return k
}

// next plans and applies.
func next(t *testing.T, k *vxlantest.Kernel, d vxlan.Desired) []vxlan.Op {
	t.Helper()
	actual, err := k.Read(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	ops := vxlan.Plan(d, actual)
	if err := k.Apply(context.Background(), ops); err != nil {
		t.Fatal(err)
	}
	return ops
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-rewrite writes it):\n%s", file, got)
	}
}

func TestGoldenPlans(t *testing.T) {
	k := vxlantest.New()
	k.AddSandbox("/run/shoal/task-1")
	golden(t, "create", text(next(t, k, example())))
	golden(t, "remove", text(next(t, k, vxlan.Desired{})))
}

func TestPlanOfOneChange(t *testing.T) {
	cases := []struct {
		name   string
		change func(*vxlan.Desired)
		want   []string // without nsenter, hashed names by their prefix
	}{
		{"nothing", func(*vxlan.Desired) {}, nil},
		{"a peer moves to another node", func(d *vxlan.Desired) {
			d.Networks[1].Peers[0].VTEP = netip.MustParseAddr("10.77.0.3")
		}, []string{"bridge fdb replace 02:42:0a:00:01:07 dev vx4097 self dst 10.77.0.3 permanent"}},
		{"a peer leaves", func(d *vxlan.Desired) { d.Networks[1].Peers = nil }, []string{
			"bridge fdb del 02:42:0a:00:01:07 dev vx4097 self dst 10.77.0.2",
			"bridge fdb del 02:42:0a:00:01:07 dev vx4097 master",
			"ip neigh del 10.0.1.7 dev vx4097",
			"ip neigh del fd00:1::7 dev vx4097",
		}},
		{"an address changes within its subnet", func(d *vxlan.Desired) {
			d.Sandboxes[0].Interfaces[1].Addrs = []netip.Prefix{netip.MustParsePrefix("172.18.0.9/16")}
		}, []string{
			"ip addr del 172.18.0.2/16 dev eth1",
			"ip addr replace 172.18.0.9/16 dev eth1",
			"ip route replace 0.0.0.0/0 via 172.18.0.1 dev eth1",
		}},
		{"an address changes to another subnet", func(d *vxlan.Desired) {
			d.Sandboxes[0].Interfaces[0].Addrs = []netip.Prefix{netip.MustParsePrefix("10.9.1.5/24")}
		}, []string{"ip addr replace 10.9.1.5/24 dev eth0", "ip addr del 10.0.1.5/24 dev eth0"}},
		{"a task goes", func(d *vxlan.Desired) { d.Sandboxes = nil }, []string{"ip link del sg", "ip link del sv"}},
		{"a leg goes", func(d *vxlan.Desired) { d.Sandboxes[0].Interfaces = d.Sandboxes[0].Interfaces[1:] }, []string{"ip link del sv", "ip link del eth0"}},
		{"the MTU shrinks", func(d *vxlan.Desired) { d.Networks[1].MTU = 1400 }, []string{"ip link set br0 mtu 1400", "ip link set vx4097 mtu 1400"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			k := kernel(t, example())
			d := example()
			c.change(&d)
			var got []string
			for _, op := range next(t, k, d) {
				line := op.String()
				if strings.HasPrefix(line, "nsenter") {
					line = strings.SplitN(line, " ", 3)[2]
				}
				got = append(got, line)
			}
			same := func(got, want string) bool {
				return got == want || (strings.HasPrefix(want, "ip link del s") && strings.HasPrefix(got, want))
			}
			if !slices.EqualFunc(got, c.want, same) {
				t.Errorf("plan:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestTaskWhoseNamespaceLostItsName(t *testing.T) {
	d := example()
	actual, _ := kernel(t, d).Read(context.Background(), d)
	delete(actual.Namespaces, d.Sandboxes[0].Namespace)
	if ops := vxlan.Plan(d, actual); len(ops) != 0 {
		t.Errorf("its processes would lose their network:\n%s", text(ops))
	}
}

func TestNamesFitAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for _, task := range []string{"a", "b", strings.Repeat("x", 25)} {
		for _, leg := range []vxlan.Interface{{Name: "eth0"}, {Name: "eth1"}, {Name: "eth0", NetworkID: "n"}} {
			seen[vxlan.TaskPort(task, leg)] = true
		}
		seen[vxlan.BalancerPort(task)] = true
	}
	if len(seen) != 12 {
		t.Errorf("%d names of 12 differ", len(seen))
	}
	seen[vxlan.TunnelName(1<<24-1)] = true
	for name := range seen {
		if len(name) > 15 {
			t.Errorf("%s has %d bytes", name, len(name))
		}
	}
}

func TestOwnership(t *testing.T) {
	cases := []struct {
		what       string
		owns       func(kind, name string) bool
		kind, name string
		want       bool
	}{
		{"host", vxlan.OwnsHostLink, vxlan.KindBridge, "shoal_gw", true},
		{"host", vxlan.OwnsHostLink, vxlan.KindBridge, "docker0", false},
		{"host", vxlan.OwnsHostLink, vxlan.KindVeth, vxlan.BalancerPort("n"), true},
		{"host", vxlan.OwnsHostLink, vxlan.KindVeth, "veth1234", false},
		{"host", vxlan.OwnsHostLink, "device", "sg0123456789ab", false},
		{"overlay", vxlan.OwnsOverlayLink, vxlan.KindBridge, "anything", true},
		{"overlay", vxlan.OwnsOverlayLink, "sit", "sit0", false}, // comes with every namespace
		{"sandbox", vxlan.OwnsSandboxLink, vxlan.KindVeth, "eth12", true},
		{"sandbox", vxlan.OwnsSandboxLink, "wireguard", "wg0", false},
		{"sandbox", vxlan.OwnsSandboxLink, vxlan.KindVeth, "veth0", false},
	}
	for _, c := range cases {
		if got := c.owns(c.kind, c.name); got != c.want {
			t.Errorf("%s %s %s: %v", c.what, c.kind, c.name, got)
		}
	}
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, p := range texts {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// TestAnEncryptedNetworkIsMadeAnew: a tunnel whose socket is elsewhere than wished
// is no tunnel of the network, however alike the rest is.
func TestAnEncryptedNetworkIsMadeAnew(t *testing.T) {
	d := vxlan.Desired{Networks: []vxlan.Network{{ID: "n", Namespace: "/ns/net-n", VNI: 4097, Underlay: "/ns/vault", Local: netip.MustParseAddr("169.254.0.1"), Port: 4789, MTU: 1390}}}
	for underlay, want := range map[string]bool{"/ns/vault": false, "": true, vxlan.UnderlayLost: true, "/ns/net-n": true} {
		links := map[string]vxlan.Link{vxlan.TunnelName(4097): {Kind: vxlan.KindVXLAN, MTU: 1390, Up: true, Master: vxlan.BridgeName,
			Tunnel: vxlan.Tunnel{VNI: 4097, Underlay: underlay, Local: netip.MustParseAddr("169.254.0.1"), Port: 4789, Proxy: true}}}
		ops := vxlan.Plan(d, vxlan.Actual{Namespaces: map[string]vxlan.Namespace{"": {}, "/ns/net-n": {Overlay: true, Links: links}}})
		del := slices.IndexFunc(ops, func(op vxlan.Op) bool { _, ok := op.(vxlan.DelLink); return ok })
		add := slices.IndexFunc(ops, func(op vxlan.Op) bool { _, ok := op.(vxlan.AddVXLAN); return ok })
		if (add >= 0) != want || (del >= 0) != want || del > add {
			t.Errorf("a socket in %q: deleted %t, made %t", underlay, del >= 0, add >= 0)
		}
	}
}
