package store

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var day = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fixture commits operations with rising indexes.
type fixture struct {
	testing.TB
	*Store
}

func newFixture(t testing.TB) fixture {
	f := fixture{t, New()}
	f.do(api.Create(overlay("n1", "app", 4097)), api.Create(overlay("n2", "db", 4098)))
	return f
}

func (f fixture) try(ops ...api.Op) error {
	return f.Commit(f.View().Index()+1, day, ops)
}

func (f fixture) do(ops ...api.Op) {
	f.Helper()
	if err := f.try(ops...); err != nil {
		f.Fatal(err)
	}
}

// refuses wants the operations refused, and nothing changed by them.
func (f fixture) refuses(kind api.ErrorKind, text string, ops ...api.Op) {
	f.Helper()
	before := f.saved()
	err := f.try(ops...)
	if err == nil || api.KindOf(err) != kind || err.Error() != text {
		f.Errorf("got  %v (%s)\nwant %s (%s)", err, api.KindOf(err), text, kind)
	}
	if after := f.saved(); after != before {
		f.Errorf("a refused commit changed the state from\n%s\nto\n%s", before, after)
	}
}

// saved is the snapshot without its header, which has the index.
func (f fixture) saved() string {
	f.Helper()
	var b bytes.Buffer
	if err := f.Save(&b); err != nil {
		f.Fatal(err)
	}
	_, body, _ := strings.Cut(b.String(), "\n")
	return body
}

func overlay(id, name string, vni uint32) *api.Network {
	n := &api.Network{VNI: vni}
	n.ID, n.Spec.Name = id, name
	return n
}

func ingress(id, name string) *api.Network {
	n := overlay(id, name, 4096)
	n.Spec.Ingress = true
	return n
}

func service(id, name string, published ...uint32) *api.Service {
	s := &api.Service{}
	s.ID, s.Spec.Name = id, name
	if len(published) > 0 {
		s.Spec.EndpointSpec = &swarm.EndpointSpec{}
	}
	for _, p := range published {
		s.Spec.EndpointSpec.Ports = append(s.Spec.EndpointSpec.Ports, swarm.PortConfig{PublishedPort: p, TargetPort: 80})
	}
	return s
}

func on(s *api.Service, targets ...string) *api.Service {
	for _, target := range targets {
		s.Spec.TaskTemplate.Networks = append(s.Spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: target})
	}
	return s
}

func withVIP(s *api.Service, network, addr string) *api.Service {
	s.Endpoint.VirtualIPs = append(s.Endpoint.VirtualIPs,
		swarm.EndpointVirtualIP{NetworkID: network, Addr: netip.MustParsePrefix(addr)})
	return s
}

func task(id, service string, state swarm.TaskState, addrs ...string) *api.Task {
	t := &api.Task{}
	t.ID, t.ServiceID, t.Status.State = id, service, state
	for _, a := range addrs {
		t.NetworksAttachments = append(t.NetworksAttachments, swarm.NetworkAttachment{
			Network: swarm.Network{ID: "n1"}, Addresses: []netip.Prefix{netip.MustParsePrefix(a)},
		})
	}
	return t
}

func node(id, host string, number uint32) *api.Node {
	n := &api.Node{Number: number}
	n.ID, n.Description.Hostname = id, host
	return n
}

func TestRefusals(t *testing.T) {
	f := newFixture(t)
	f.do(api.Create(ingress("n0", "ingress")), api.Create(node("h1", "one", 1)),
		api.Create(withVIP(on(service("s1", "web", 8080), "n1"), "n1", "10.0.1.2/24")),
		api.Create(task("t1", "s1", swarm.TaskStateRunning, "10.0.1.3/24")))
	host := service("s9", "host")
	host.Spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{PublishedPort: 8080, PublishMode: "host"}}}
	allocated := service("s9", "auto")
	allocated.Endpoint.Ports = []swarm.PortConfig{{PublishedPort: 8080, PublishMode: "ingress", Protocol: "tcp"}}
	stale := service("s1", "web")
	stale.Version.Index = 1
	portTaken := "port '8080' is already in use by service 'web' (s1) as an ingress port"
	for _, c := range []struct {
		kind api.ErrorKind
		text string
		op   api.Op
	}{
		{api.Conflict, "name conflicts with an existing object: service web already exists", api.Create(service("s2", "web"))},
		{api.Conflict, "id conflicts with an existing object: service s1 already exists", api.Create(service("s1", "other"))},
		{api.Conflict, "network with name app already exists", api.Create(overlay("n3", "app", 0))},
		{api.Conflict, "ingress network (n0) is already present", api.Create(ingress("n9", "mesh2"))},
		{api.OutOfSequence, "update out of sequence", api.Update(stale)},
		{api.NotFound, "service nope not found", api.UpdateAnyway(service("nope", "x"))},
		{api.NotFound, "node nope not found", api.UpdateAnyway(node("nope", "x", 0))},
		{api.Invalid, portTaken, api.Create(service("s9", "nine", 8080))},
		{api.Invalid, portTaken, api.Create(host)},
		{api.Invalid, portTaken, api.Create(allocated)},
		{api.Internal, "network nope not found", api.Create(on(service("s2", "b"), "nope"))},
		{api.Invalid, "network app is in use by service web", api.Delete(overlay("n1", "", 0))},
		{api.Invalid, "ingress network cannot be removed because service web depends on it", api.Delete(overlay("n0", "", 0))},
		{api.NotFound, "service gone not found", api.Create(task("t2", "gone", swarm.TaskStateNew))},
		{api.Internal, "address 10.0.1.3 of task t2 in network n1 belongs to task t1", api.Create(task("t2", "s1", swarm.TaskStateNew, "10.0.1.3/24"))},
		{api.Internal, "address 10.0.1.2 of task t2 in network n1 belongs to service s1", api.Create(task("t2", "s1", swarm.TaskStateNew, "10.0.1.2/24"))},
		{api.Internal, "address 10.0.1.3 of service s2 in network n1 belongs to task t1", api.Create(withVIP(service("s2", "b"), "n1", "10.0.1.3/24"))},
		{api.Internal, "VXLAN identifier 4097 of network x (n3) belongs to network app (n1)", api.Create(overlay("n3", "x", 4097))},
		{api.Internal, "node number 1 of node h2 belongs to node h1", api.Create(node("h2", "two", 1))},
		{api.Invalid, "service without an id", api.Create(service("", "x"))},
		{api.Invalid, "a service has no status to report", api.Status(service("s1", "web"))},
		{api.Invalid, `unknown action "shrug" on service s1`, api.Op{Action: "shrug", Object: service("s1", "web")}},
	} {
		f.refuses(c.kind, c.text, api.Create(service("ok", "fine")), c.op)
	}
}

func TestHostPortKeepsIngressOut(t *testing.T) {
	f := newFixture(t)
	host := service("s1", "host")
	host.Spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{PublishedPort: 53, Protocol: "udp", PublishMode: "host"}}}
	f.do(api.Create(host), api.Create(service("s2", "tcp", 53)))
	udp := service("s3", "udp")
	udp.Spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{PublishedPort: 53, Protocol: "udp"}}}
	f.refuses(api.Invalid, "port '53' is already in use by service 'host' (s1) as a host-published port", api.Create(udp))
}

// TestWhatIsGivenUpIsFree: names and ports at once, addresses and identifiers
// after the release.
func TestWhatIsGivenUpIsFree(t *testing.T) {
	f := newFixture(t)
	f.do(api.Create(on(service("s1", "web", 80), "n1")), api.Create(task("t1", "s1", swarm.TaskStateRunning, "10.0.1.3/24")))
	f.do(api.Status(task("t1", "", swarm.TaskStateFailed)))
	second := api.Create(task("t2", "s1", swarm.TaskStateNew, "10.0.1.3/24"))
	f.refuses(api.Internal, "address 10.0.1.3 of task t2 in network n1 is not free yet: t1.3", second)
	f.do(api.Release(3), second)
	f.do(api.Delete(service("s1", "")), api.Create(service("s2", "web", 80)))
	f.refuses(api.Invalid, "network app is in use by task t2", api.Delete(overlay("n1", "", 0)))
	f.do(api.Delete(task("t2", "", "")), api.Delete(overlay("n1", "", 0)), api.Delete(overlay("n1", "", 0)))
	f.do(api.Create(overlay("n8", "app", 0)))
	taken := api.Create(overlay("n3", "other", 4097))
	f.refuses(api.Internal, "VXLAN identifier 4097 of network other (n3) is not free yet: n1.8", taken)
	f.do(api.Release(f.View().Index()), taken)
	if left := f.View().Retired(); len(left) != 0 {
		t.Errorf("still retired: %+v", left)
	}
}

// TestRemovedNetworkWaitsForItsTasks: a network can be removed while its tasks are
// about to stop; it stays for them, and its release counts from the end of the last.
func TestRemovedNetworkWaitsForItsTasks(t *testing.T) {
	f := newFixture(t)
	going := task("t1", "s1", swarm.TaskStateRunning, "10.0.1.3/24")
	f.do(api.Create(service("s1", "web")), api.Create(going))
	going.DesiredState = swarm.TaskStateShutdown
	f.do(api.UpdateAnyway(going))
	f.do(api.Delete(overlay("n1", "", 0)), api.Create(overlay("n8", "app", 0)))
	if n := f.View().RemovedNetwork("n1"); n == nil || !n.Removed || n.VNI != 4097 {
		t.Fatalf("for its last task there is %+v", n)
	}
	f.do(api.Release(f.View().Index()))
	if f.View().RemovedNetwork("n1") == nil {
		t.Fatal("released although a task lives on it")
	}
	before := f.View().Index()
	f.do(api.Status(task("t1", "", swarm.TaskStateShutdown)))
	f.do(api.Release(before))
	if f.View().RemovedNetwork("n1") == nil || len(f.View().Retired()) != 2 {
		t.Fatal("released before the nodes could know that the task ended")
	}
	f.do(api.Release(f.View().Index()))
	if left := f.View().Retired(); len(left) != 0 {
		t.Errorf("still retired: %+v", left)
	}
}

func TestServiceVersions(t *testing.T) {
	f := newFixture(t)
	f.do(api.Create(service("s1", "web")))
	first := f.View().Service("s1")
	if first.SpecVersion != first.Version || first.Version.Index != 2 || !first.CreatedAt.Equal(day) {
		t.Fatalf("created as %+v", first)
	}
	same := first.Copy()
	same.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateStateUpdating}
	f.do(api.Update(same))
	if s := f.View().Service("s1"); s.SpecVersion != first.SpecVersion || s.Version.Index != 3 {
		t.Errorf("an update of the status set spec version %v", s.SpecVersion)
	}
	changed := f.View().Service("s1").Copy()
	changed.PreviousSpec = &first.Spec
	changed.Spec.Labels = map[string]string{"a": "b"}
	f.do(api.Update(changed))
	if s := f.View().Service("s1"); s.SpecVersion.Index != 4 || s.PreviousSpecVersion != first.SpecVersion {
		t.Errorf("versions are %v, before %v", s.SpecVersion, s.PreviousSpecVersion)
	}
	f.refuses(api.OutOfSequence, "update out of sequence", api.Update(same))
}

func TestTaskStatusNeverFalls(t *testing.T) {
	f := newFixture(t)
	f.do(api.Create(service("s1", "web")), api.Create(task("t1", "s1", swarm.TaskStateAssigned)))
	report := task("t1", "", swarm.TaskStateRunning)
	report.DesiredState, report.NodeID = "remove", "elsewhere"
	f.do(api.Status(report))
	got := f.View().Task("t1")
	if got.Status.State != swarm.TaskStateRunning || got.DesiredState != "" || got.NodeID != "" || !got.StartedAt.Equal(day) {
		t.Errorf("after the report: %+v", got)
	}
	f.do(api.Status(task("t1", "", swarm.TaskStatePreparing)), api.Status(report), api.Status(task("gone", "", "")))
	if f.View().Task("t1") != got {
		t.Error("an old or repeated report changed the task")
	}
	older := task("t1", "s1", swarm.TaskStateAssigned)
	older.DesiredState = swarm.TaskStateShutdown
	f.do(api.UpdateAnyway(older))
	if got := f.View().Task("t1"); got.Status.State != swarm.TaskStateRunning || got.DesiredState != swarm.TaskStateShutdown || got.StartedAt.IsZero() {
		t.Errorf("after the update: %+v", got)
	}
}

func TestNodeStatus(t *testing.T) {
	f := newFixture(t)
	h := node("h1", "one", 1)
	h.Spec.Role = swarm.NodeRoleManager
	f.do(api.Create(h))
	report := node("h1", "uno", 7)
	report.RaftAddr = "10.0.0.1:2377"
	f.do(api.Status(report))
	got := f.View().Node("h1")
	if got.Description.Hostname != "uno" || got.Number != 1 || got.Spec.Role != swarm.NodeRoleManager || got.RaftAddr == "" {
		t.Errorf("after the report: %+v", got)
	}
	if len(f.View().NodesByHostname("one")) != 0 || len(f.View().NodesByHostname("uno")) != 1 {
		t.Error("the host name is not found")
	}
	f.do(api.Status(report))
	if f.View().Node("h1") != got {
		t.Error("a repeated report changed the node")
	}
	report.Capabilities = api.Capabilities{Balancer: "nft", Algorithms: []string{"rr"}}
	f.do(api.Status(report))
	if got := f.View().Node("h1"); got.Capabilities.Balancer != "nft" {
		t.Errorf("capabilities after the report: %+v", got.Capabilities)
	}
}

// TestNodeStatusParts: who writes one part of a node has read the others before
// somebody else wrote them, and takes nothing back.
func TestNodeStatusParts(t *testing.T) {
	f := newFixture(t)
	f.do(api.Create(node("h1", "one", 1)))
	read := f.View().Node("h1")
	said, raft, dead := read.Copy(), read.Copy(), read.Copy()
	said.Status = swarm.NodeStatus{State: swarm.NodeStateReady, Addr: "10.0.0.1", Message: "no path to h2"}
	said.Description.Hostname, said.GossipStep = "uno", 3
	raft.ManagerStatus = &swarm.ManagerStatus{Leader: true}
	dead.Status.State, dead.Status.Message, dead.DownSince = swarm.NodeStateDown, "heartbeat failure", day
	f.do(api.NodeStatus(api.PartReport, said))
	f.do(api.NodeStatus(api.PartManager, raft), api.NodeStatus(api.PartState, dead))
	got := f.View().Node("h1")
	if got.Description.Hostname != "uno" || got.GossipStep != 3 || got.Status.Addr != "10.0.0.1" || got.ManagerStatus == nil {
		t.Errorf("what the node and Raft said is lost: %+v", got)
	}
	if got.Status.State != swarm.NodeStateDown || got.Status.Message != "heartbeat failure" || !got.DownSince.Equal(day) {
		t.Errorf("its death is lost: %+v", got.Status)
	}
	f.do(api.NodeStatus(api.PartReport, said))
	ready := dead.Copy()
	ready.Status.State, ready.Status.Message = swarm.NodeStateReady, ""
	f.do(api.NodeStatus(api.PartState, ready))
	if got := f.View().Node("h1").Status; got != said.Status {
		t.Errorf("a heartbeat has changed what the node said: %+v", got)
	}
}

func TestViewsAndResolve(t *testing.T) {
	f := newFixture(t)
	old := f.View()
	f.do(api.Create(node("h1x", "one", 1)), api.Create(node("h2x", "two", 2)), api.Create(node("h2y", "two", 3)),
		api.Create(on(service("s1", "web"), "app")), api.Create(on(service("s2", "api"), "n1")))
	for i := range 3 {
		n := task(fmt.Sprintf("t%d", i), fmt.Sprintf("s%d", i%2+1), swarm.TaskStateNew)
		n.NodeID = "h1x"
		f.do(api.Create(n))
	}
	v := f.View()
	if old.Nodes() != nil || old.Service("s1") != nil || old.Cluster() != nil {
		t.Error("an old view changed")
	}
	if got := v.ServicesByNetwork("n1"); len(got) != 2 || got[0].ID != "s1" {
		t.Errorf("services on n1: %v", got)
	}
	if got := v.TasksByService("s1"); len(got) != 2 || got[1].ID != "t2" {
		t.Errorf("tasks of s1: %v", got)
	}
	if len(v.TasksByNode("h1x")) != 3 || len(v.Tasks()) != 3 || v.ServiceByName("api").ID != "s2" || v.NetworkByName("db").ID != "n2" {
		t.Error("look-ups are wrong")
	}
	for ref, want := range map[string]string{
		"h1x": "h1x", "one": "h1x", "h1": "h1x", "two": "node two is ambiguous (2 matches found)",
		"h2": "node h2 is ambiguous (2 matches found)", "no": "node no not found", "": "node  not found",
	} {
		o, err := v.Resolve(api.KindNode, ref)
		if err == nil && o.ObjectID() != want || err != nil && err.Error() != want {
			t.Errorf("%q resolves to %v, %v", ref, o, err)
		}
	}
	if o, err := v.Resolve(api.KindService, "web"); err != nil || o.ObjectID() != "s1" {
		t.Errorf("web is %v, %v", o, err)
	}
}

func TestOneCluster(t *testing.T) {
	f := newFixture(t)
	c := &api.Cluster{}
	c.ID, c.Spec.Name = "c1", "default"
	f.do(api.Create(c))
	other := &api.Cluster{}
	other.ID = "c2"
	f.refuses(api.Conflict, "cluster c1 already exists", api.Create(other))
	if f.View().Cluster().ID != "c1" {
		t.Error("the cluster is not found")
	}
}
