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
