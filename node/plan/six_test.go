package plan

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/dns/zone"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
)

// dual is a world where the networks have both families: a task of another node,
// published, and one of this node.
func dual() Input {
	remote := rec("n2", "t1", "web", 1, "ingress", "10.0.0.5", "net", "10.0.1.3")
	for i, six := range []string{"fd00::5", "fd01::3"} {
		a := &remote.Value.Attachments[i]
		a.Addrs = append(a.Addrs, netip.MustParseAddr(six))
	}
	in := world(remote)
	in.Networks = append(in.Networks, ingressNetwork())
	for i, six := range []string{"fd01::/64", "fd00::/64"} {
		o := in.Networks[i].IPAMOptions
		o.Configs = append(o.Configs, swarm.IPAMConfig{Subnet: netip.MustParsePrefix(six)})
	}
	s := publish(in.Services[0], 80, 8000, swarm.PortConfigPublishModeIngress)
	s.Endpoint.VirtualIPs = append(s.Endpoint.VirtualIPs, swarm.EndpointVirtualIP{NetworkID: "net", Addr: netip.MustParsePrefix("fd01::2/64")})
	l := localTask("cli", "ingress", "10.0.0.9/24", "net", "10.0.1.99/24")
	for i, six := range []string{"fd00::9/64", "fd01::99/64"} {
		a := &l.Task.NetworksAttachments[i]
		a.Addresses = append(a.Addresses, netip.MustParsePrefix(six))
	}
	l.Gateway = netip.MustParsePrefix("172.18.0.5/16")
	in.Local = []Local{l}
	return in
}

func fronts(out Output, namespace string) (got []string) {
	for _, d := range out.Balancers {
		if d.Namespace != namespace {
			continue
		}
		for _, s := range d.Services {
			line := s.Front.String() + " >"
			for _, b := range s.Backends {
				line += " " + b.String()
			}
			got = append(got, line)
		}
	}
	return got
}

// TestIPv6OfANode: what is balanced, forwarded, routed and named depends on what
// the node can do with IPv6; the rest stays as it is without.
func TestIPv6OfANode(t *testing.T) {
	const peer6 = "[fd53:686f:616c:3::2]:8000"
	tests := []struct {
		name      string
		change    func(*Self)
		mesh, vip []string
		forwards  []string
		egress    int
		peer      []string // addresses of the other node's task
		gateways  []string // default routes
		closed    bool     // IPv6 leaves the ingress leg as replies only
		names     []string
	}{
		{"all of it", func(*Self) {},
			[]string{"169.254.128.2:8000/tcp > 10.0.0.5:80", peer6 + "/tcp > [fd00::5]:80"}, []string{"10.0.1.2 > 10.0.1.3", "fd01::2 > fd01::3"},
			[]string{"169.254.128.2:8000", peer6}, 2, []string{"10.0.1.3", "fd01::3"},
			[]string{"172.18.0.1", "fd53:686f:616c:1::1"}, false, []string{"10.0.1.2", "fd01::2"}},
		{"not outside", func(s *Self) { s.NoIPv6Outside = "off" },
			[]string{"169.254.128.2:8000/tcp > 10.0.0.5:80"}, []string{"10.0.1.2 > 10.0.1.3", "fd01::2 > fd01::3"},
			[]string{"169.254.128.2:8000"}, 1, []string{"10.0.1.3", "fd01::3"},
			[]string{"fd53:686f:616c:2::ffff", "172.18.0.1"}, true, []string{"10.0.1.2", "fd01::2"}},
		{"nothing", func(s *Self) { s.NoIPv6 = "the kernel has none" },
			[]string{"169.254.128.2:8000/tcp > 10.0.0.5:80"}, []string{"10.0.1.2 > 10.0.1.3"},
			[]string{"169.254.128.2:8000"}, 1, []string{"10.0.1.3"},
			[]string{"172.18.0.1"}, true, []string{"10.0.1.2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := dual()
			tt.change(&in.Self)
			before := dual()
			tt.change(&before.Self)
			out := Compile(in)
			if !reflect.DeepEqual(in, before) {
				t.Error("the input was changed")
			}
			expect(t, "the mesh balances", fronts(out, "/run/ns/net-ingress"), tt.mesh)
			expect(t, "the task balances", fronts(out, in.Local[0].Namespace), tt.vip)
			var forwards, gateways []string
			for _, f := range out.Translations[0].Forwards {
				forwards = append(forwards, f.To.String())
			}
			expect(t, "the host forwards to", forwards, tt.forwards)
			if n := len(out.Translations[0].Masquerade); n != tt.egress || len(out.Overlay.Gateway.Addrs) != n {
				t.Errorf("%d prefixes leave, gateway %+v", n, out.Overlay.Gateway)
			}
			for _, n := range out.Overlay.Networks {
				if n.ID == "net" {
					expect(t, "the peer is at", texts(n.Peers[0].Addrs), tt.peer)
				}
			}
			for _, r := range out.Overlay.Sandboxes[0].Routes {
				if r.Dst.Bits() == 0 && r.Table == 0 {
					gateways = append(gateways, r.Via.String())
				}
			}
			expect(t, "default routes", gateways, tt.gateways)
			if r := out.Translations[1].Return; len(r.Datagrams) == 2 == tt.closed {
				t.Errorf("answers by %+v", r)
			}
			addrs, _ := zone.Build(out.Zone).Addrs([]string{"net"}, "web")
			expect(t, "the name", texts(addrs), tt.names)
		})
	}
}

func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestReturnOfBothFamilies: marked replies go by one table, each family through
// its own gateway with the same hardware address.
func TestReturnOfBothFamilies(t *testing.T) {
	out := Compile(dual())
	s := out.Overlay.Sandboxes[0]
	want := []vxlan.Neighbor{
		{Addr: netip.MustParseAddr("169.254.64.0"), MAC: "02:42:a9:fe:40:00"},
		{Addr: netip.MustParseAddr("fd53:686f:616c:2::ffff"), MAC: "02:42:a9:fe:40:00"},
	}
	if !reflect.DeepEqual(s.Interfaces[0].Neighbors, want) || len(s.Rules) != 2 || s.Rules[0].Six || !s.Rules[1].Six {
		t.Errorf("the ingress leg is %+v, rules %+v", s.Interfaces[0], s.Rules)
	}
	direct := prefixes("10.0.0.0/24", "169.254.64.0/18", "fd00::/64", "fd53:686f:616c:2::/64")
	for _, tr := range out.Translations[1:] {
		if !slices.Equal(tr.Return.Direct, direct) {
			t.Errorf("answered directly: %v, want %v", tr.Return.Direct, direct)
		}
	}
	for _, d := range out.Balancers {
		if d.Namespace != "/run/ns/net-ingress" {
			continue
		}
		if c, err := d.Canonical(); err != nil || !slices.Equal(c.MasqueradeFrom, d.MasqueradeFrom) {
			t.Errorf("%v, %v", d.MasqueradeFrom, err)
		}
	}
}

// TestSmallDataPath: where the data path is too small for IPv6, overlays are not.
func TestSmallDataPath(t *testing.T) {
	in := dual()
	in.Self.MTU = 1300
	for _, n := range Compile(in).Overlay.Networks {
		if n.MTU != 1280 {
			t.Errorf("network %s has an MTU of %d", n.ID, n.MTU)
		}
	}
	in = world()
	in.Self.MTU = 1300
	if n := Compile(in).Overlay.Networks[0]; n.MTU != 1250 {
		t.Errorf("network %s without IPv6 has an MTU of %d", n.ID, n.MTU)
	}
}

func TestMeshAttachment(t *testing.T) {
	in := dual()
	ingress := in.Networks[1]
	a := Self{Number: 258}.MeshAttachment(ingress)
	if expect(t, "both", texts(a.Addrs), []string{"169.254.65.2", "fd53:686f:616c:2::102"}); a.MAC != "02:42:a9:fe:41:02" {
		t.Errorf("hardware address %s", a.MAC)
	}
	expect(t, "the kernel has none", texts(Self{Number: 1, NoIPv6: "x"}.MeshAttachment(ingress).Addrs), []string{"169.254.64.1"})
	expect(t, "from before", texts(Self{Number: 1}.MeshAttachment(ingressNetwork()).Addrs), []string{"169.254.64.1"})
}

// TestNetworkOfIPv6Alone: a node without IPv6 says so instead of starting a task
// that nobody reaches.
func TestNetworkOfIPv6Alone(t *testing.T) {
	l := localTask("cli", "net", "fd01::9/64")
	if err := (Self{}).Wires(l.Task); err != nil {
		t.Error(err)
	}
	if err := (Self{ID: "n1", NoIPv6: "the kernel has none"}).Wires(l.Task); err == nil || !strings.Contains(err.Error(), "the kernel has none") {
		t.Errorf("a node without IPv6: %v", err)
	}
	in := Input{Self: me, Networks: []*api.Network{aNetwork("net", 4097, "fd01::/64")}, Local: []Local{l},
		Records:  []endpoint.Record{rec("n2", "t2", "web", 1, "net", "fd01::4")},
		Services: []*api.Service{aService("web", "fd01::2/64", "net")}}
	out := Compile(in)
	if i := out.Overlay.Sandboxes[0].Interfaces; len(i) != 1 || i[0].MAC != MAC(netip.MustParseAddr("fd01::9")) {
		t.Errorf("interfaces %+v", i)
	}
	expect(t, "balanced", fronts(out, l.Namespace), []string{"fd01::2 > fd01::4"})
	in.Self.NoIPv6 = "the kernel has none"
	if out := Compile(in); len(out.Overlay.Sandboxes[0].Interfaces) != 0 || !slices.EqualFunc(out.Balancers, []lb.Desired{{Namespace: l.Namespace}},
		func(a, b lb.Desired) bool { return a.Namespace == b.Namespace && len(a.Services) == 0 }) {
		t.Errorf("without IPv6: %+v", out)
	}
}
