package netview

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/dataplane/trace"
	"shoal/node/fabric"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
)

// still is a kernel that takes everything and has nothing.
type still struct{}

func (still) Read(context.Context, vxlan.Desired) (vxlan.Actual, error) { return vxlan.Actual{}, nil }
func (still) Apply(context.Context, []vxlan.Op) error                   { return nil }
func (still) ReadPeers(context.Context, vxlan.Network) (vxlan.Link, bool, error) {
	return vxlan.Link{}, false, nil
}

// peers answers for the node n2 with a part of its own.
type peers struct{ asked []string }

func (p *peers) Open(context.Context, string, string, url.Values) (io.ReadCloser, error) {
	return nil, os.ErrInvalid
}

func (p *peers) Get(_ context.Context, node, path string, q url.Values, out any) error {
	p.asked = append(p.asked, node+path)
	var answer any = Part{Namespaces: []trace.Namespace{
		{Node: "host2", Interfaces: []trace.Interface{{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}}, Listens: []trace.Listen{}},
	}}
	if path == "/shoal/trace" {
		answer = Route{Node: "host2", From: q.Get("from"), To: q.Get("to")}
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

// cluster is node n1 (host1) with a task on network front, and node n2 (host2)
// with another.
func cluster(t *testing.T) (*Sources, *peers) {
	t.Helper()
	s, p := sources(), &peers{}
	other := endpoint.New("n2", 1)
	net2 := []endpoint.Attachment{{NetworkID: "back", Addrs: []netip.Addr{netip.MustParseAddr("10.0.2.3")}}}
	set := []endpoint.Record{
		other.Set("task2", endpoint.Value{ServiceID: "s2", ServiceName: "db", TaskName: "db.1", ContainerID: "c0ffee0000", VTEP: netip.MustParseAddr("192.0.2.2"), Attachments: net2}),
		other.Set(endpoint.NodeKey, endpoint.Value{VTEP: netip.MustParseAddr("192.0.2.2")}),
	}
	table := endpoint.New("n1", 1)
	table.Set(endpoint.NodeKey, endpoint.Value{VTEP: netip.MustParseAddr("192.0.2.1")})
	table.Merge(set)
	s.View, s.Peers = table.View, p
	two := &api.Node{DataPathAddr: netip.MustParseAddr("192.0.2.2")}
	two.ID, two.Description.Hostname = "n2", "host2"
	s.Nodes["n2"] = two
	f, err := fabric.New(fabric.Config{Dir: t.TempDir(), Self: plan.Self{ID: "n1", NamespaceDir: t.TempDir()}, Overlay: still{},
		Assigned: func() ([]*api.Network, []*api.Service, []*api.Node) { return nil, nil, nil }, View: table.View})
	if err != nil {
		t.Fatal(err)
	}
	s.Fabric, s.Balancer = f, still1("nft")
	return s, p
}

// still1 is a balancer that has a name and nothing else.
type still1 string

func (n still1) Name() string                                           { return string(n) }
func (still1) Read(context.Context, string) (lb.Desired, error)         { return lb.Desired{}, nil }
func (still1) Apply(context.Context, lb.Desired) (changed int, _ error) { return 0, nil }
func (still1) Supports(lb.Algorithm) error                              { return nil }

func TestOrigin(t *testing.T) {
	s, _ := cluster(t)
	for _, row := range []struct{ from, to, entry, node, complaint string }{
		{"host", "x", "", "n1", ""}, {"host1", "x", "", "n1", ""}, {"host2", "x", "", "n2", ""}, {"n2", "x", "", "n2", ""},
		{"db.1", "x", "", "n2", ""}, {"db.1.task2", "x", "", "n2", ""}, {"task2", "x", "", "n2", ""}, {"c0ff", "x", "", "n2", ""},
		{"c0f", "x", "", "", "no task, container or node"}, {"db", "x", "", "", "db is a service: say which task of it sends: db.1 on host2"},
		{"outside", "192.0.2.2:80", "", "n2", ""}, {"198.51.100.1", "host2:80", "", "n2", ""}, {"outside", "192.0.2.9", "", "n1", ""},
		{"outside", "192.0.2.9", "host2", "n2", ""}, {"outside", "192.0.2.9", "host9", "", `no node "host9"`},
	} {
		o, err := s.origin(url.Values{"from": {row.from}, "to": {row.to}, "entry": {row.entry}})
		if row.complaint != "" {
			if err == nil || !strings.Contains(err.Error(), row.complaint) {
				t.Errorf("from %s: %v, want %q", row.from, err, row.complaint)
			}
			continue
		}
		if err != nil || o.node != row.node {
			t.Errorf("from %s to %s: node %q, %v; want %q", row.from, row.to, o.node, err, row.node)
		}
	}
}

// TestOriginOnTheHost sends as the node does, and says so.
func TestOriginOnTheHost(t *testing.T) {
	s, _ := cluster(t)
	table := endpoint.New("n1", 1)
	table.Set("task3", endpoint.Value{ServiceID: "s3", ServiceName: "agent", TaskName: "agent.n1", ContainerID: "decaf00000", VTEP: netip.MustParseAddr("192.0.2.1")})
	s.View = table.View
	for _, from := range []string{"agent.n1", "task3", "decaf"} {
		o, err := s.origin(url.Values{"from": {from}})
		if err != nil || o.node != "n1" || o.task != nil || len(o.notes()) != 1 {
			t.Errorf("from %s: %+v, %v, notes %q", from, o, err, o.notes())
		}
	}
	if o, _ := s.origin(url.Values{"from": {"host"}}); o.notes() != nil {
		t.Errorf("the node itself: %q", o.notes())
	}
}

func TestTraceElsewhere(t *testing.T) {
	s, p := cluster(t)
	r, err := s.Trace(t.Context(), url.Values{"from": {"db.1"}, "to": {"web:80"}})
	if err != nil || r.Node != "host2" || r.From != "db.1" || len(p.asked) != 1 {
		t.Errorf("%+v %v, asked %v", r, err, p.asked)
	}
	if _, err := s.Trace(t.Context(), url.Values{"from": {"db.1"}, "to": {"web:80"}, relayed: {"1"}}); err == nil {
		t.Error("a question that was passed on is passed on again")
	}
	s.Peers = nil
	if _, err := s.Trace(t.Context(), url.Values{"from": {"db.1"}, "to": {"web:80"}}); api.KindOf(err) != api.Unavailable {
		t.Errorf("without a way to other nodes: %v", err)
	}
}

// TestNoPacketIsSent: what no packet can be sent for is refused by the node that is
// asked, in words that are true of FROM, before any other node is.
func TestNoPacketIsSent(t *testing.T) {
	s, p := cluster(t)
	for _, row := range []struct{ from, to, protocol, complaint string }{
		{"outside", "192.0.2.1:80", "", "a packet can be sent from a task or a node, not from outside"},
		{"outside", "192.0.2.2:80", "", "a packet can be sent from a task or a node, not from outside"},
		{"198.51.100.1", "host2:80", "", "a packet can be sent from a task or a node, not from outside"},
		{"db.1", "web:80", "sctp", "no packet of sctp can be sent"},
	} {
		_, err := s.Trace(t.Context(), url.Values{"from": {row.from}, "to": {row.to}, "protocol": {row.protocol}, "live": {"1"}})
		if err == nil || !strings.HasPrefix(err.Error(), row.complaint) || api.KindOf(err) != api.Invalid || len(p.asked) != 0 {
			t.Errorf("from %s to %s: %v, asked %v", row.from, row.to, err, p.asked)
		}
	}
}

// TestWhither: why another node is asked is told as it is.
func TestWhither(t *testing.T) {
	s, _ := cluster(t)
	s.Peers = nil
	for from, want := range map[string]string{
		"db.1": "db.1 is on node host2, and", "outside": "outside enters by node host2, and",
		"198.51.100.1": "198.51.100.1 enters by node host2, and", "host2": "host2 is another node, and",
	} {
		_, err := s.Trace(t.Context(), url.Values{"from": {from}, "to": {"192.0.2.2:80"}})
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("from %s: %v, want %q", from, err, want)
		}
	}
}

// TestTraceAsksTheNodesOnTheWay: what another node does is what that node says.
func TestTraceAsksTheNodesOnTheWay(t *testing.T) {
	s, p := cluster(t)
	o := observed{addrs: map[string][]netip.Prefix{"eth0": {netip.MustParsePrefix("192.0.2.1/24")}}}
	w := &walker{s: s, packet: trace.Packet{Node: "host1", Dst: netip.MustParseAddrPort("192.0.2.2:80"), Protocol: lb.TCP}, parts: map[string]Part{}, mute: map[string]error{}}
	w.paths = trace.Trace(s.world(o, nil), w.packet)
	if reached := w.reached(); len(reached) != 0 {
		t.Logf("reached %v before anything was asked", reached)
	}
	w.parts, _ = ask[Part](t.Context(), p, []string{"n2"}, "/shoal/part", nil)
	paths := trace.Trace(s.world(o, w.parts), w.packet)
	if len(paths) != 1 || paths[0].Verdict != trace.Refused || !strings.Contains(paths[0].Reason, "nothing listens on 80/tcp in host2") {
		t.Errorf("%+v", paths)
	}
}

func TestProtocol(t *testing.T) {
	for _, row := range []struct{ protocol, to, want, complaint string }{
		{"", "web:80", "tcp", ""}, {"", "web", "ping", ""}, {"udp", "web:53", "udp", ""}, {"ping", "web", "ping", ""},
		{"ping", "web:80", "", "a ping goes to no port"}, {"udp", "web", "", "say which, as in web:80"}, {"icmp", "web", "", "choose tcp"},
		{"", "fd00::1", "ping", ""}, {"", "[fd00::1]:80", "tcp", ""},
	} {
		_, got, err := protocol(url.Values{"protocol": {row.protocol}, "to": {row.to}})
		if got != row.want || (row.complaint == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), row.complaint) {
			t.Errorf("%s %s: %q %v", row.protocol, row.to, got, err)
		}
	}
}

// TestNotOnTheNetwork: a name or an address of a network that the task is not on
// is explained with the network's name.
func TestNotOnTheNetwork(t *testing.T) {
	s, _ := cluster(t)
	s.Networks["back"] = &api.Network{}
	s.Networks["back"].Spec.Name = "back"
	task := &api.Task{}
	task.ServiceName, task.Slot = "web", 1
	front := swarm.NetworkAttachment{}
	front.Network.ID = "net"
	task.NetworksAttachments = []swarm.NetworkAttachment{front}
	from := origin{node: "n1", name: "web.1", task: &plan.Local{Task: task}}
	_, _, path, err := s.destination(from, "db:80")
	if err != nil || path == nil || path.Verdict != trace.NoName || path.Reason != `"db" is on network back, but web.1 is on front` {
		t.Errorf("%+v %v", path, err)
	}
	_, _, path, err = s.destination(from, "example.com")
	if err != nil || path == nil || path.Reason != `web.1 is on front, and nothing there is called "example.com": its name server asks outside` {
		t.Errorf("%+v %v", path, err)
	}
	got := s.explain(t.Context(), from, []trace.Path{{Verdict: trace.Left, Dst: netip.MustParseAddrPort("10.0.2.3:80")}})
	if got[0].Reason != "10.0.2.3 is db.1 on network back, and web.1 is not on that network" {
		t.Errorf("%+v", got)
	}
}

func TestSockets(t *testing.T) {
	text := `  sl  local_address rem_address   st tx_queue
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000
   2: 00000000000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 0
   3: 0100007F:0052 0100007F:9999 01 00000000:00000000
   4: nonsense:0052 x 0A
`
	var got []string
	for _, a := range parseSockets(text, tcpListen) {
		got = append(got, a.String())
	}
	if want := "127.0.0.1:80 0.0.0.0:8080 [::1]:81"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}
