package dispatch

import (
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/rpc"
)

// fakeAgent is a Source of what the test says.
type fakeAgent struct {
	mu       sync.Mutex
	all, new map[string]swarm.TaskStatus
	wake     chan struct{}
}

func newFakeAgent() *fakeAgent {
	return &fakeAgent{all: map[string]swarm.TaskStatus{}, new: map[string]swarm.TaskStatus{}, wake: make(chan struct{}, 1)}
}

func (a *fakeAgent) set(task string, state swarm.TaskState) {
	a.mu.Lock()
	a.all[task] = swarm.TaskStatus{State: state}
	a.new[task] = a.all[task]
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *fakeAgent) Node() api.NodeReport  { return *described() }
func (a *fakeAgent) Level() uint64         { return 0 }
func (a *fakeAgent) Beyond() *api.Beyond   { return nil }
func (a *fakeAgent) Wake() <-chan struct{} { return a.wake }

func (a *fakeAgent) list(m map[string]swarm.TaskStatus) []api.TaskReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []api.TaskReport
	for id, status := range m {
		out = append(out, api.TaskReport{TaskID: id, Status: status})
	}
	clear(a.new)
	return out
}

func (a *fakeAgent) All() []api.TaskReport        { return a.list(a.all) }
func (a *fakeAgent) Unreported() []api.TaskReport { return a.list(a.new) }

func (a *fakeAgent) Requeue(reports []api.TaskReport) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range reports {
		if _, newer := a.new[r.TaskID]; !newer {
			a.new[r.TaskID] = r.Status
		}
	}
}

func source(root *ca.Root, node string, role swarm.NodeRole) *ca.Source {
	csr, key, err := ca.NewRequest()
	if err != nil {
		panic(err)
	}
	cert, err := root.Issue(csr, ca.Identity{NodeID: node, Role: role, ClusterID: "cluster"}, time.Now(), 0)
	if err != nil {
		panic(err)
	}
	c, err := ca.NewCredentials(key, cert, root.CertPEM())
	if err != nil {
		panic(err)
	}
	return ca.NewSource(c)
}

// port serves a dispatcher on loopback.
func port(t *testing.T, d *Dispatcher, src *ca.Source) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := rpc.NewMux(nil)
	d.Register(mux)
	s := rpc.New(rpc.Config{Listener: l, Advertise: l.Addr().String(), Source: src, Handler: mux})
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// two managers share a store; leadership moves, and the node follows.
func TestClientFollowsTheLeader(t *testing.T) {
	root, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0)), api.Create(aTask("t1", "s", "n1")))
	other := &fixture{store: f.store, Dispatcher: New(f.Dispatcher.cfg)}
	addr1 := port(t, f.Dispatcher, source(root, "m1", swarm.NodeRoleManager))
	addr2 := port(t, other.Dispatcher, source(root, "m2", swarm.NodeRoleManager))
	f.Dispatcher.cfg.Leader = func() string { return addr2 }
	other.Dispatcher.cfg.Leader = func() string { return addr1 }
	stop := f.lead(t)

	agent, r := newFakeAgent(), &replica{}
	taken := make(chan api.Assignment, 100)
	client := &Client{RPC: rpc.NewClient(source(root, "n1", swarm.NodeRoleWorker), nil), NodeID: "n1", Managers: func() []string { return []string{addr2} }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- client.Run(ctx, func(m api.Assignment) error {
			if m.Full {
				r.mu.Lock()
				r.messages = 0
				r.mu.Unlock()
			}
			taken <- m
			return r.apply(m)
		}, agent)
	}()
	defer func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Error(err)
		}
		client.RPC.Close()
	}()
	first := <-taken
	if !first.Full || first.Heartbeat != time.Second {
		t.Errorf("first message: Full %v, heartbeat %s", first.Full, first.Heartbeat)
	}
	waitFor(t, func() bool { return state(f, "n1") == swarm.NodeStateReady })
	agent.set("t1", swarm.TaskStatePreparing)
	waitFor(t, func() bool { return f.store.View().Task("t1").Status.State == swarm.TaskStatePreparing })
	f.must(api.Create(aTask("t2", "s", "n1")))
	waitFor(t, func() bool { return r.get(api.KindTask, "t2") != nil })

	stop() // nobody leads for a moment
	agent.set("t1", swarm.TaskStateRunning)
	other.lead(t)
	waitFor(t, func() bool { return f.store.View().Task("t1").Status.State == swarm.TaskStateRunning })
	f.must(api.Create(aTask("t3", "s", "n1")))
	waitFor(t, func() bool { return r.get(api.KindTask, "t3") != nil })
	if len(r.errors) > 0 {
		t.Error(r.errors)
	}
}

func TestSearchDoesNotSpin(t *testing.T) {
	now := time.Now()
	s := &search{managers: func() []string { return []string{"a", "b"} }}
	first := s.next(now)
	if !s.redirected(first, &rpc.NotLeaderError{Leader: "c"}, now) || s.next(now) != "c" {
		t.Error("a pointer to the leader is not followed at once")
	}
	if s.redirected("c", &rpc.NotLeaderError{Leader: "a"}, now) {
		t.Error("a second pointer in a row is followed without a pause")
	}
	if s.next(now) != "a" {
		t.Error("the second pointer is forgotten")
	}
	if s.redirected("a", &rpc.NotLeaderError{}, now) || s.redirected("a", &rpc.NotLeaderError{Leader: "a"}, now) {
		t.Error("a pointer to nowhere is followed")
	}
	if x, y := s.next(now), s.next(now); x == y {
		t.Error("the search does not go round")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		s.pause(ctx)
	}
	if s.backoff != lastBackoff {
		t.Errorf("back-off %s", s.backoff)
	}
}

func TestSearchAvoidsWhoJustDied(t *testing.T) {
	now := time.Now()
	list := []string{"a", "b", "c"}
	s := &search{managers: func() []string { return list }}
	s.redirected("a", context.DeadlineExceeded, now)
	for range 5 {
		if s.next(now) == "a" {
			t.Fatal("the dead manager is tried at once")
		}
	}
	if s.redirected("b", &rpc.NotLeaderError{Leader: "a"}, now) || s.next(now) == "a" {
		t.Error("an outdated pointer to the dead manager is followed")
	}
	if !s.redirected("b", &rpc.NotLeaderError{Leader: "a"}, now.Add(avoidance)) {
		t.Error("the manager is avoided for too long")
	}
	for _, err := range []error{errAbandoned, io.EOF, syscall.ECONNREFUSED} {
		s := &search{managers: func() []string { return list }}
		s.redirected("a", err, now)
		soon := now.Add(missed * time.Second / 4)
		if s.next(now) == "a" || !s.redirected("b", &rpc.NotLeaderError{Leader: "a"}, soon) || s.next(soon) != "a" {
			t.Errorf("after %v the leader is not found again while it waits for this node", err)
		}
	}
	s = &search{managers: func() []string { return []string{"a"} }}
	s.redirected("a", context.DeadlineExceeded, now)
	if s.next(now) != "a" {
		t.Error("the only manager is avoided")
	}
	s = &search{managers: func() []string { return nil }}
	if s.next(now) != "" {
		t.Error("a manager out of nothing")
	}
}
