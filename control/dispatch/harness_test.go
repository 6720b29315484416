package dispatch

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/control/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a store that the test commits to, with the dispatcher before it.
type fixture struct {
	store *store.Store
	*Dispatcher

	mu        sync.Mutex
	index     uint64
	now       time.Time
	proposals int
}

func newFixture() *fixture {
	f := &fixture{store: store.New(), now: time.Unix(1_800_000_000, 0).UTC()}
	f.Dispatcher = New(Config{
		Store: f.store, Now: f.clock, Leader: func() string { return "10.0.0.9:2377" },
		Propose: func(_ context.Context, ops []api.Op) error {
			f.mu.Lock()
			f.proposals++
			f.mu.Unlock()
			return f.commit(ops...)
		},
	})
	return f
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *fixture) commit(ops ...api.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index++
	return f.store.Commit(f.index, f.now, ops)
}

func (f *fixture) must(ops ...api.Op) {
	if err := f.commit(ops...); err != nil {
		panic(err)
	}
}

// lead runs the dispatcher until the returned function is called.
func (f *fixture) lead(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	waitFor(t, func() bool { _, err := f.leading(); return err == nil })
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func waitFor(t interface{ Fatal(...any) }, what func() bool) {
	for end := time.Now().Add(5 * time.Second); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

// replica is what a node makes of its stream.
type replica struct {
	mu       sync.Mutex
	objects  map[key]api.Object
	revision uint64
	messages int
	// confirmed is the last revision that the node was asked to confirm.
	confirmed uint64
	errors    []string
}

func (r *replica) apply(m api.Assignment) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.Full != (r.messages == 0) {
		r.errors = append(r.errors, fmt.Sprintf("message %d has Full %v", r.messages, m.Full))
	}
	if m.Full {
		r.objects = map[key]api.Object{}
	}
	for _, op := range m.Ops {
		k := keyOf(op.Object)
		_, has := r.objects[k]
		if has == (op.Action == api.ActionCreate) {
			r.errors = append(r.errors, fmt.Sprintf("%s of %v, which is there: %v", op.Action, k, has))
		}
		if op.Action == api.ActionDelete {
			delete(r.objects, k)
		} else {
			r.objects[k] = op.Object
		}
	}
	r.messages++
	r.revision = m.Revision
	if m.Confirm {
		r.confirmed = m.Revision
	}
	return nil
}

func (r *replica) get(k api.Kind, id string) api.Object {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.objects[key{k, id}]
}

func (r *replica) confirm() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.confirmed
}

func (r *replica) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.messages
}

// watch opens a session that feeds a replica.
func (f *fixture) watch(t *testing.T, nodeID string) (*replica, func() error) {
	r := &replica{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Session(ctx, nodeID, r.apply) }()
	waitFor(t, func() bool { return r.count() > 0 })
	var once sync.Once
	var err error
	stop := func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { stop() })
	return r, stop
}

func aCluster() *api.Cluster {
	c := &api.Cluster{CACert: []byte("cert"), CAKey: []byte("secret"), GossipKeys: [][]byte{[]byte("gossip")}, NextNodeNumber: 9}
	c.ID, c.Spec.Name = "cluster", "default"
	c.JoinTokens = swarm.JoinTokens{Worker: "w", Manager: "m"}
	c.Spec.CAConfig.SigningCAKey = "secret"
	return c
}

func aNode(id string, number uint32) *api.Node {
	n := &api.Node{Number: number}
	n.ID = id
	n.Spec.Role, n.Spec.Availability = swarm.NodeRoleWorker, swarm.NodeAvailabilityActive
	n.Description.Hostname = "host-" + id
	n.Description.Resources.MemoryBytes = 1 << 30
	return n
}

func aNetwork(id string, vni uint32, ingress bool) *api.Network {
	n := &api.Network{VNI: vni}
	n.ID, n.Spec.Name, n.Spec.Ingress = id, "name-"+id, ingress
	return n
}

// aService is attached to networks, and published when port is not 0.
func aService(id string, port uint32, networks ...string) *api.Service {
	s := &api.Service{}
	s.ID, s.Spec.Name = id, "name-"+id
	s.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "secret"}
	for _, n := range networks {
		s.Spec.TaskTemplate.Networks = append(s.Spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: n, Aliases: []string{"alias"}})
	}
	if port != 0 {
		s.Spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: port, PublishMode: swarm.PortConfigPublishModeIngress}}}
	}
	return s
}

var lastAddr = netip.MustParseAddr("10.9.0.0")

func aTask(id, service, node string, networks ...string) *api.Task {
	t := &api.Task{ServiceName: "name-" + service}
	t.ID, t.ServiceID, t.NodeID = id, service, node
	t.DesiredState, t.Status.State = swarm.TaskStateRunning, swarm.TaskStateAssigned
	for _, n := range networks {
		lastAddr = lastAddr.Next()
		t.NetworksAttachments = append(t.NetworksAttachments, swarm.NetworkAttachment{
			Network: swarm.Network{ID: n}, Addresses: []netip.Prefix{netip.PrefixFrom(lastAddr, 16)},
		})
	}
	return t
}

func found(f *fixture) {
	f.must(api.Create(aCluster()), api.Create(aNode("n1", 1)), api.Create(aNode("n2", 2)),
		api.Create(aNetwork("ingress", 4096, true)), api.Create(aNetwork("net1", 4097, false)), api.Create(aNetwork("net2", 4098, false)))
}
