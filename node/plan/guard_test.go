package plan

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
)

func aNode(id, dataPath, reached string) *api.Node {
	n := &api.Node{}
	n.ID, n.Status.Addr = id, reached
	if dataPath != "" {
		n.DataPathAddr = netip.MustParseAddr(dataPath)
	}
	return n
}

func TestMembersAreThoseThatTheManagersList(t *testing.T) {
	gossiped := rec("n9", "t9", "web", 1, "net", "10.0.1.9")
	gossiped.Value.VTEP = netip.MustParseAddr("192.0.2.9")
	in := Input{Self: me, Records: []endpoint.Record{gossiped}, Networks: []*api.Network{ingressNetwork()}}
	if m := Compile(in).Translations[0].Members; m != nil {
		t.Errorf("in ignorance of the nodes only %v may send", m)
	}
	in.Nodes = []*api.Node{aNode("n3", "", "192.0.2.3"), aNode("n1", "192.0.2.1", ""), aNode("n2", "198.51.100.2", "192.0.2.2"), aNode("n4", "", "")}
	want := &lb.Members{Port: 4789, Addrs: []netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("198.51.100.2")}}
	got := Compile(in).Translations[0]
	if !reflect.DeepEqual(got.Members, want) {
		t.Errorf("members %v, want %v", got.Members, want)
	}
	if links := []string{GatewayBridge, vxlan.BalancerPort("ingress")}; !slices.Equal(got.Passing, links) {
		t.Errorf("people's rules judge what passes %q, want %q", got.Passing, links)
	}
	inner := []lb.Inner{{Prefix: netip.MustParsePrefix("169.254.128.0/30"), Link: vxlan.BalancerPort("ingress")}}
	if !slices.Equal(got.Inner, inner) {
		t.Errorf("inner addresses %v, want %v", got.Inner, inner)
	}
}

func TestMTUOfANetwork(t *testing.T) {
	option := func(mtu string) *api.Network {
		n := aNetwork("net", 4097, "10.0.1.0/24")
		n.Spec.DriverConfiguration = &swarm.Driver{Options: map[string]string{api.MTUOption: mtu}}
		return n
	}
	over6 := me
	over6.VTEP = netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		self Self
		net  *api.Network
		want int
	}{
		{me, aNetwork("net", 4097, "10.0.1.0/24"), 1450},
		{over6, aNetwork("net", 4097, "10.0.1.0/24"), 1430},
		{me, option("1300"), 1300},
		{me, option("nonsense"), 1450},
	} {
		if got := tt.self.networkMTU(tt.net); got != tt.want {
			t.Errorf("MTU %d over %s, want %d", got, tt.self.VTEP, tt.want)
		}
	}
}

func TestProbeNetwork(t *testing.T) {
	self := me
	self.Probes, self.SoftwareChecksums = true, true
	nodes := []*api.Node{aNode("n1", "192.0.2.1", ""), aNode("n2", "192.0.2.2", ""), aNode("n3", "", "192.0.2.3"), aNode("n4", "192.0.2.4", "")}
	for i, n := range nodes {
		n.Number = uint32(i + 1)
	}
	nodes[3].Status.State = swarm.NodeStateDown
	networks := Compile(Input{Self: self, Nodes: nodes}).Overlay.Networks
	if len(networks) != 1 {
		t.Fatalf("networks %+v", networks)
	}
	n := networks[0]
	if n.VNI != api.ProbeVNI || n.MTU != 1450 || !n.SoftwareChecksums || len(n.Addrs) != 1 || n.Addrs[0].String() != "169.254.192.1/18" || n.MAC != "02:42:a9:fe:c0:01" {
		t.Errorf("the probe network is %+v", n)
	}
	if len(n.Peers) != 2 || n.Peers[0].VTEP.String() != "192.0.2.2" || n.Peers[0].Addrs[0].String() != "169.254.192.2" {
		t.Errorf("its peers are %+v", n.Peers)
	}
	targets := ProbeTargets(self, nodes, func(id string) bool { return id == "n3" })
	if len(targets.Peers) != 1 || targets.Peers[0].ID != "n2" || targets.Namespace != n.Namespace || targets.Overhead != 50 || targets.Addr != n.Addrs[0].Addr() {
		t.Errorf("targets %+v", targets)
	}
	self.Probes = false
	if networks := Compile(Input{Self: self, Nodes: nodes}).Overlay.Networks; len(networks) != 0 {
		t.Errorf("a node that does not test has %+v", networks)
	}
	self.Probes = true
	if networks := Compile(Input{Self: self, Nodes: nodes[:1]}).Overlay.Networks; len(networks) != 0 {
		t.Errorf("a node that is alone has %+v", networks)
	}
}
