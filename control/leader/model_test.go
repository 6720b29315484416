package leader

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// model is a cluster in one process: the real store and planners, and nodes that
// do what a test says, in virtual time.
type model struct {
	t     fataler
	store *store.Store
	clock *handClock
	index uint64
	ids   int
	// joined counts the nodes that ever were.
	joined int
	s      *session
	stop   context.CancelFunc
	// rounds counts rounds that wanted something.
	rounds int
	// committed is called after each commit.
	committed func()
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

type handClock struct{ at time.Time }

func (c *handClock) Now() time.Time { return c.at }
func (c *handClock) Timer(time.Duration) (<-chan time.Time, func()) {
	return nil, func() {}
}

func newModel(t fataler, nodes int) *model {
	m := &model{t: t, store: store.New(), clock: &handClock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}}
	cluster := &api.Cluster{}
	cluster.ID, cluster.Spec.Name = "cluster", "default"
	m.commit(api.Create(cluster))
	ingress := &api.Network{}
	ingress.ID, ingress.Spec.Name, ingress.Spec.Ingress = "ingress-id", "ingress", true
	m.commit(api.Create(ingress))
	for i := range nodes {
		m.join(i + 1)
	}
	m.elect()
	return m
}

// join adds node n<number>; one that had been removed gets a number that is new.
func (m *model) join(number int) {
	m.joined++
	n := &api.Node{}
	n.ID, n.Number = fmt.Sprintf("n%d", number), uint32(m.joined)
	n.Spec.Availability, n.Spec.Role = swarm.NodeAvailabilityActive, swarm.NodeRoleWorker
	n.Status.State = swarm.NodeStateReady
	n.Description.Hostname = n.ID
	n.Description.Resources = swarm.Resources{NanoCPUs: 64e9, MemoryBytes: 64 << 30}
	m.commit(api.Create(n))
}

// elect starts a new leader's session.
func (m *model) elect() {
	if m.stop != nil {
		m.stop()
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	m.s = newSession(Config{
		Store: m.store, Clock: m.clock, Logger: slog.New(slog.DiscardHandler),
		NewID:  func() string { m.ids++; return fmt.Sprintf("t%05d", m.ids) },
		NewKey: func() []byte { m.ids++; return fmt.Appendf(nil, "key %d", m.ids) },
	}, m.store.Subscribe(ctx, subscription))
}

// commit applies operations the way Raft does: written and read again.
func (m *model) commit(ops ...api.Op) {
	m.t.Helper()
	if err := m.try(ops...); err != nil {
		m.t.Fatalf("commit: %v", err)
	}
}

func (m *model) try(ops ...api.Op) error {
	raw, err := json.Marshal(ops)
	if err != nil {
		return err
	}
	var decoded []api.Op
	if err := json.Unmarshal(raw, &decoded); err != nil {
		return err
	}
	m.index++
	if err := m.store.Commit(m.index, m.clock.at, decoded); err != nil {
		return err
	}
	if m.committed != nil {
		m.committed()
	}
	return nil
}

// plan runs rounds until no planner wants anything.
func (m *model) plan() {
	m.t.Helper()
	for range 50 {
		if err := m.s.catchUp(context.Background()); err != nil {
			m.t.Fatalf("catch up: %v", err)
		}
		ops := m.s.round()
		if len(ops) == 0 {
			return
		}
		m.rounds++
		for _, batch := range split(ops) {
			m.commit(batch...)
		}
	}
	m.t.Fatalf("the planners do not come to rest; next: %s", describe(m.s.round()))
}

func (m *model) view() *store.View { return m.store.View() }

// report writes a task's state as its node would.
func (m *model) report(t *api.Task, state swarm.TaskState) {
	m.t.Helper()
	c := *t
	c.Status.State, c.Status.Timestamp, c.Status.Message = state, m.clock.at, string(state)
	m.commit(api.Status(&c))
}

// obey moves every task on a live node one step to what is desired of it, and
// says whether any moved.
func (m *model) obey() bool {
	moved := false
	for _, t := range m.view().Tasks() {
		if n := m.view().Node(t.NodeID); n == nil || n.Status.State != swarm.NodeStateReady {
			continue
		}
		if next := step(t); next != "" {
			m.report(t, next)
			moved = true
		}
	}
	return moved
}

// step is the next state of a task on a live node, "" when it stays.
func step(t *api.Task) swarm.TaskState {
	at := api.Rank(t.Status.State)
	switch {
	case at < api.Rank(swarm.TaskStateAssigned) || !t.Alive():
		return ""
	case !t.Wanted():
		return swarm.TaskStateShutdown
	case at < api.Rank(swarm.TaskStateReady):
		return swarm.TaskStateReady
	case t.DesiredState == swarm.TaskStateRunning && at < api.Rank(swarm.TaskStateRunning):
		return swarm.TaskStateRunning
	}
	return ""
}

// settle plans and obeys until nothing moves, letting time pass when planners
// wait for it, for at most the given virtual time.
func (m *model) settle(most time.Duration) {
	m.t.Helper()
	end := m.clock.at.Add(most)
	for range 5000 {
		m.plan()
		if m.obey() {
			continue
		}
		next := m.s.next()
		if next.IsZero() || next.After(end) {
			return
		}
		if next.After(m.clock.at) {
			m.clock.at = next
		}
	}
	m.t.Fatalf("the cluster does not come to rest")
}

func (m *model) network(name string, subnet ...swarm.IPAMConfig) *api.Network {
	n := &api.Network{}
	n.ID, n.Spec.Name = name+"-id", name
	if len(subnet) > 0 {
		n.Spec.IPAMOptions = &swarm.IPAMOptions{Configs: subnet}
	}
	m.commit(api.Create(n))
	return n
}

func replicatedSpec(name string, replicas uint64) swarm.ServiceSpec {
	var s swarm.ServiceSpec
	s.Name = name
	s.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	s.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "shoal/whoami:latest"}
	return s
}

func globalSpec(name string) swarm.ServiceSpec {
	s := replicatedSpec(name, 0)
	s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
	return s
}

func (m *model) create(spec swarm.ServiceSpec) string {
	m.t.Helper()
	s := &api.Service{}
	s.ID, s.Spec = spec.Name+"-id", spec
	m.commit(api.Create(s))
	return s.ID
}

// update changes a service's spec as the API does.
func (m *model) update(id string, change func(*swarm.ServiceSpec)) {
	m.t.Helper()
	s := m.view().Service(id).Copy()
	before := s.Copy().Spec
	change(&s.Spec)
	s.PreviousSpec, s.UpdateStatus = &before, nil
	m.commit(api.Update(s))
}

func (m *model) scale(id string, n uint64) {
	m.update(id, func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = &n })
}

// node changes a node.
func (m *model) node(id string, change func(*api.Node)) {
	m.t.Helper()
	stored := m.view().Node(id)
	if stored == nil {
		return
	}
	n := stored.Copy()
	change(n)
	m.commit(api.UpdateAnyway(n))
}

func (m *model) kill(id string) {
	m.node(id, func(n *api.Node) { n.Status.State, n.DownSince = swarm.NodeStateDown, m.clock.at })
}

func (m *model) revive(id string) {
	m.node(id, func(n *api.Node) { n.Status.State, n.DownSince = swarm.NodeStateReady, time.Time{} })
}

// running returns the service's tasks that run, on live nodes, as desired.
func (m *model) running(id string) []*api.Task {
	var running []*api.Task
	for _, t := range m.view().TasksByService(id) {
		n := m.view().Node(t.NodeID)
		if t.Status.State == swarm.TaskStateRunning && t.Wanted() && n != nil && n.Status.State == swarm.NodeStateReady {
			running = append(running, t)
		}
	}
	return running
}

func (m *model) mustRun(id string, n int) {
	m.t.Helper()
	if got := len(m.running(id)); got != n {
		m.t.Fatalf("%d tasks of %s run, want %d:\n%s", got, id, n, m.dump(id))
	}
}

func (m *model) dump(id string) string {
	out := fmt.Sprintf("%+v\n", m.view().Service(id).UpdateStatus)
	for _, t := range m.view().TasksByService(id) {
		out += fmt.Sprintf("%s slot %d node %s %s -> %s spec %d err %q\n", t.ID, t.Slot, t.NodeID, t.Status.State, t.DesiredState, t.SpecVersion.Index, t.Status.Err)
	}
	return out
}

func TestServiceIsCreatedInOneRound(t *testing.T) {
	m := newModel(t, 3)
	m.plan()
	m.network("app")
	spec := replicatedSpec("web", 6)
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "app-id"}}
	spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080}}}
	m.rounds = 0
	id := m.create(spec)
	m.plan()
	if m.rounds != 1 {
		t.Errorf("it took %d rounds", m.rounds)
	}
	s := m.view().Service(id)
	if got := fmt.Sprint(s.Endpoint.VirtualIPs); got != "[{ingress-id 10.0.0.2/24} {app-id 10.0.1.2/24}]" {
		t.Errorf("virtual IPs %s", got)
	}
	for _, task := range m.view().TasksByService(id) {
		if task.Status.State != swarm.TaskStateAssigned || len(task.NetworksAttachments) != 2 || task.Ports[0].PublishedPort != 8080 {
			t.Errorf("task %+v", task)
		}
	}
	m.settle(time.Minute)
	m.mustRun(id, 6)
	if s := m.view().Service(id); s.UpdateStatus != nil {
		t.Errorf("a new service has an update status: %+v", s.UpdateStatus)
	}
}

func TestScaleUpTakesOneRound(t *testing.T) {
	m := newModel(t, 3)
	id := m.create(replicatedSpec("web", 3))
	m.settle(time.Minute)
	m.rounds = 0
	m.scale(id, 30)
	m.plan()
	if m.rounds != 1 {
		t.Errorf("it took %d rounds", m.rounds)
	}
	m.settle(time.Minute)
	m.mustRun(id, 30)
	m.scale(id, 2)
	m.settle(time.Minute)
	m.mustRun(id, 2)
	if got := len(m.view().TasksByService(id)); got != 2 {
		t.Errorf("%d tasks are left:\n%s", got, m.dump(id))
	}
}

func TestUpdateRollsOverAllTasks(t *testing.T) {
	for _, order := range []swarm.UpdateOrder{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst} {
		m := newModel(t, 3)
		spec := replicatedSpec("web", 6)
		spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: 2, Delay: time.Second, Order: order}
		id := m.create(spec)
		m.settle(time.Minute)
		floor, ceiling := 6, 0
		m.committed = func() {
			floor, ceiling = min(floor, len(m.running(id))), max(ceiling, len(m.running(id)))
		}
		m.update(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "shoal/whoami:v2" })
		m.plan()
		if st := m.view().Service(id).UpdateStatus; st == nil || st.State != swarm.UpdateStateUpdating || st.Message != "update in progress" {
			t.Fatalf("%s: status %+v", order, st)
		}
		m.settle(time.Hour)
		m.mustRun(id, 6)
		for _, task := range m.running(id) {
			if task.Spec.ContainerSpec.Image != "shoal/whoami:v2" {
				t.Errorf("%s: %s", order, m.dump(id))
			}
		}
		if st := m.view().Service(id).UpdateStatus; st.State != swarm.UpdateStateCompleted || st.Message != "update completed" || st.CompletedAt == nil {
			t.Errorf("%s: status %+v", order, st)
		}
		if order == swarm.UpdateOrderStopFirst && (floor != 4 || ceiling != 6) {
			t.Errorf("%s: between %d and %d ran", order, floor, ceiling)
		}
		if order == swarm.UpdateOrderStartFirst && floor != 6 {
			t.Errorf("%s: between %d and %d ran", order, floor, ceiling)
		}
	}
}

func TestDeadNodesTasksRunElsewhere(t *testing.T) {
	m := newModel(t, 3)
	id := m.create(replicatedSpec("web", 6))
	every := m.create(globalSpec("every"))
	m.settle(time.Minute)
	m.mustRun(every, 3)
	m.kill("n2")
	m.settle(time.Second)
	m.mustRun(id, 6)
	m.mustRun(every, 2)
	m.revive("n2")
	m.settle(time.Minute)
	m.mustRun(id, 6)
	m.mustRun(every, 3)
}
