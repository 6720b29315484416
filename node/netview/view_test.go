package netview

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/dataplane/lb"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
	"shoal/overlay/vxlan"
)

// sources show a table with one task and one node's own record.
func sources() *Sources {
	table := endpoint.New("n1", 1)
	at := []endpoint.Attachment{{NetworkID: "net", MAC: "02:42:0a:00:01:03", Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.3")}}}
	vtep := netip.MustParseAddr("192.0.2.1")
	table.Set("t1", endpoint.Value{State: endpoint.Draining, ServiceName: "web", TaskName: "web.1", VTEP: vtep, Attachments: at})
	table.Set(endpoint.NodeKey, endpoint.Value{VTEP: vtep, Attachments: []endpoint.Attachment{{NetworkID: "unknown"}}})
	n, node := &api.Network{}, &api.Node{}
	n.ID, n.Spec.Name = "net", "front"
	node.ID, node.Description.Hostname = "n1", "host1"
	return &Sources{
		NodeID: "n1", View: table.View, Gossip: func() gossip.Stats { return gossip.Stats{Health: 3} },
		Networks: map[string]*api.Network{"net": n}, Nodes: map[string]*api.Node{"n1": node},
	}
}

func TestEndpoints(t *testing.T) {
	got := sources().Endpoints()
	want := []Endpoint{
		{Network: "front", Service: "web", Task: "web.1", State: "draining", Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.3")},
			MAC: "02:42:0a:00:01:03", Node: "host1", VTEP: netip.MustParseAddr("192.0.2.1"), Epoch: 1, Seq: 1},
		{Network: "unknown", Task: "(routing mesh of host1)", State: "ready", Node: "host1",
			VTEP: netip.MustParseAddr("192.0.2.1"), Epoch: 1, Seq: 2},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestOverlays: peers have their tasks and nodes; those of the self-test, which are
// in no table, have their nodes.
func TestOverlays(t *testing.T) {
	s := sources()
	s.Nodes["n1"].DataPathAddr = netip.MustParseAddr("192.0.2.1")
	peer := func(mac string) []vxlan.Peer {
		return []vxlan.Peer{{MAC: mac, VTEP: netip.MustParseAddr("192.0.2.1")}}
	}
	var wish plan.Output
	wish.Overlay.Networks = []vxlan.Network{
		{ID: "net", VNI: 4097, Peers: peer("02:42:0a:00:01:03")}, {ID: plan.ProbeNetwork, VNI: api.ProbeVNI, Peers: peer("02:42:a9:fe:c0:01")},
	}
	wish.Blocked = map[string]string{"sealed": "this node cannot encrypt"}
	got := s.overlays(wish)
	want := []struct {
		name, task string
		selfTest   bool
	}{{"front", "web.1", false}, {"probe", "", true}, {"sealed", "", false}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, w := range want {
		o := got[i]
		if o.Name != w.name || o.SelfTest() != w.selfTest || len(o.Peers) > 0 && (o.Peers[0].Task != w.task || o.Peers[0].Node != "host1") {
			t.Errorf("%+v, want %+v", o, w)
		}
	}
}

func TestNamed(t *testing.T) {
	service := lb.Service{
		Front:    lb.Front{Addr: netip.MustParseAddr("10.0.1.2")},
		Backends: []lb.Backend{{Addr: netip.MustParseAddr("10.0.1.3"), Weight: 1}, {Addr: netip.MustParseAddr("10.0.1.9"), Weight: 1}},
	}
	have := lb.Desired{Services: []lb.Service{service}}
	wish := lb.Desired{Services: []lb.Service{{Front: service.Front, Name: "web",
		Backends: []lb.Backend{{Addr: netip.MustParseAddr("10.0.1.3"), Task: "web.1"}}}}}
	got := named(have, wish).Services[0]
	if got.Name != "web" || got.Backends[0].Task != "web.1" || got.Backends[1].Task != "" {
		t.Errorf("got %+v", got)
	}
	if service.Backends[0].Task != "" || have.Services[0].Name != "" {
		t.Error("what was read is changed")
	}
}

func TestMount(t *testing.T) {
	rt := wire.NewRouter(slog.New(slog.NewTextHandler(io.Discard, nil)))
	var now *Sources
	Mount(rt, func() *Sources { return now })
	ask := func(path string) *httptest.ResponseRecorder {
		res := httptest.NewRecorder()
		rt.ServeHTTP(res, httptest.NewRequest("GET", path, nil))
		return res
	}
	for _, path := range []string{"endpoints", "lb", "dns", "overlay", "gossip", "drift"} {
		if res := ask("/shoal/" + path); res.Code != 503 || !strings.Contains(res.Body.String(), "this node is in no cluster") {
			t.Errorf("%s outside a cluster: %d %s", path, res.Code, res.Body)
		}
	}
	now = sources()
	var list []Endpoint
	if err := json.Unmarshal(ask("/shoal/endpoints").Body.Bytes(), &list); err != nil || len(list) != 2 {
		t.Errorf("endpoints are %+v, %v", list, err)
	}
	var stats gossip.Stats
	if err := json.Unmarshal(ask("/shoal/gossip").Body.Bytes(), &stats); err != nil || stats.Health != 3 {
		t.Errorf("gossip is %+v, %v", stats, err)
	}
}
