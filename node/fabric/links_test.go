package fabric

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"shoal/control/api"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
)

// TestARemoteChangeLooksAtItsNetworkAlone: whatever the node carries, the endpoint of
// another node costs one look at the network that it is on.
func TestARemoteChangeLooksAtItsNetworkAlone(t *testing.T) {
	b := newBed(t)
	back := &api.Network{VNI: 4098}
	back.ID, back.Spec.Name = "net1", "back"
	b.networks = append(b.networks, back)
	tasks := []*api.Task{aTask("b0", "10.0.2.3/24")}
	tasks[0].NetworksAttachments[0].Network.ID = "net1"
	for i := range 20 {
		tasks = append(tasks, aTask(fmt.Sprint("t", i), fmt.Sprintf("10.0.1.%d/24", i+3)))
	}
	if err := b.attach(t, tasks...); err != nil {
		t.Fatal(err)
	}
	other := endpoint.New("n2", 1)
	remote := func(state endpoint.State) {
		b.table.Merge([]endpoint.Record{other.Set("r1", endpoint.Value{State: state, ServiceID: "web", ServiceName: "web", TaskName: "web.9",
			VTEP: netip.MustParseAddr("192.0.2.2"), Attachments: []endpoint.Attachment{
				{NetworkID: "net0", MAC: "02:42:0a:00:01:c8", Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.200")}}}})})
	}
	step := func(when string, want map[string]int) {
		t.Helper()
		b.kernel.taken()
		clear(b.kernel.links.Looked)
		if err := b.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.kernel.links.Looked; !maps.Equal(got, want) {
			t.Errorf("%s: the step looked at %v in %q", when, got, b.kernel.taken())
		}
		if drift, err := b.Drift(t.Context()); err != nil || len(drift) > 0 {
			t.Errorf("%s: drift %q, %v", when, drift, err)
		}
	}
	one := map[string]int{"/run/ns/net-net0": 1}
	remote(endpoint.Ready)
	step("one comes", one)
	remote(endpoint.Draining)
	step("it drains", map[string]int{})
	tombstone, _ := other.Remove("r1")
	b.table.Merge([]endpoint.Record{tombstone})
	step("it goes", one)
}

// TestAMissingTunnelIsMadeAgain: peers cannot be followed where there is nothing to
// follow them with.
func TestAMissingTunnelIsMadeAgain(t *testing.T) {
	b := newBed(t)
	if err := b.attach(t, aTask("t1", "10.0.1.3/24")); err != nil {
		t.Fatal(err)
	}
	if err := b.kernel.links.Apply(t.Context(), []vxlan.Op{vxlan.DelLink{Namespace: "/run/ns/net-net0", Name: "vx4097"}}); err != nil {
		t.Fatal(err)
	}
	other := endpoint.New("n2", 1)
	b.table.Merge([]endpoint.Record{other.Set("r1", endpoint.Value{VTEP: netip.MustParseAddr("192.0.2.2"), Attachments: []endpoint.Attachment{
		{NetworkID: "net0", MAC: "02:42:0a:00:01:c8", Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.200")}}}})})
	if err := b.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(b.kernel.links.Links(), "/run/ns/net-net0 vx4097") {
		t.Errorf("there are %q", b.kernel.links.Links())
	}
}

func TestOnlyPeers(t *testing.T) {
	base := func() vxlan.Desired {
		return vxlan.Desired{Gateway: &vxlan.Gateway{MTU: 1500}, Sandboxes: []vxlan.Sandbox{{ID: "t1"}},
			Networks: []vxlan.Network{{ID: "a", Peers: []vxlan.Peer{{MAC: "1"}}}, {ID: "b"}}}
	}
	for _, tt := range []struct {
		name   string
		change func(*vxlan.Desired)
		only   bool
		want   int
	}{
		{"a peer comes", func(d *vxlan.Desired) { d.Networks[1].Peers = []vxlan.Peer{{MAC: "2"}} }, true, 1},
		{"peers of two", func(d *vxlan.Desired) { d.Networks[0].Peers, d.Networks[1].Peers = nil, []vxlan.Peer{{MAC: "1"}} }, true, 2},
		{"an MTU", func(d *vxlan.Desired) { d.Networks[0].MTU = 1400 }, false, 0},
		{"a network", func(d *vxlan.Desired) { d.Networks = d.Networks[:1] }, false, 0},
		{"a task", func(d *vxlan.Desired) { d.Sandboxes = nil }, false, 0},
		{"the gateway", func(d *vxlan.Desired) { d.Gateway = &vxlan.Gateway{MTU: 1400} }, false, 0},
	} {
		wish := base()
		tt.change(&wish)
		networks, only := onlyPeers(base(), wish)
		if only != tt.only || only && len(networks) != tt.want {
			t.Errorf("%s: %v, %t", tt.name, networks, only)
		}
	}
}
