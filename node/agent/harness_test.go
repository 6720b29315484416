package agent_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/agent"
	"shoal/node/runtime"
	"shoal/node/runtime/fake"
	"shoal/overlay/endpoint"
)

// journal is what happened, in order: "start t1", "publish t1 ready", …
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// network has namespaces in memory. It accepts for a task only what it was told,
// and only while the task is attached.
type network struct {
	*journal
	mu       sync.Mutex
	attached map[string]bool
	live     map[string]bool
	deaf     map[string]bool // tasks that accept no connection
	closed   []uint16        // ports at which no task does
	asked    []uint16        // the ports that were tried last
	refuse   error           // what Attach says
	stuck    int             // so many times Detach fails
	hold     chan struct{}   // Attach waits for it, unless nil
	unheard  int             // so many clients wait at every task that is attached
}

func (n *network) Adopt(t *api.Task) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attached[t.ID] = true
	return n.refuse
}

func (n *network) Attach(ctx context.Context, t *api.Task) (string, error) {
	n.mu.Lock()
	hold, refuse := n.hold, n.refuse
	n.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			n.add("attach %s cut", t.ID)
			return "", ctx.Err()
		}
	}
	if refuse != nil {
		return "", refuse
	}
	n.add("attach %s", t.ID)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attached[t.ID] = true
	return "/run/ns/task-" + t.ID, nil
}

func (n *network) SetLive(id string, live bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.attached[id] {
		n.live[id] = live
	}
}

func (n *network) Detach(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stuck > 0 {
		n.stuck--
		return fmt.Errorf("namespace of task %s is busy", id)
	}
	if n.attached[id] {
		n.add("detach %s", id)
	}
	delete(n.attached, id)
	delete(n.live, id)
	return nil
}

func (n *network) Accepts(_ context.Context, t *api.Task, ports []uint16) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = ports
	return n.attached[t.ID] && !n.deaf[t.ID] && !slices.ContainsFunc(ports, func(p uint16) bool { return slices.Contains(n.closed, p) })
}

func (n *network) Unheard(id string) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.attached[id] {
		return 0, fmt.Errorf("task %s has no namespace", id)
	}
	n.add("look for the unheard of %s", id)
	return n.unheard, nil
}

func (n *network) set(change func(*network)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

// endpoints is the writer's side of the table.
type endpoints struct {
	*journal
	mu      sync.Mutex
	records map[string]endpoint.Value
	slow    chan struct{} // Settled waits for it, unless nil
	// patience is how long the last Settle was given.
	patience time.Duration
}

func (e *endpoints) Publish(id string, v endpoint.Value) {
	e.add("publish %s %s", id, v.State)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.records[id] = v
}

func (e *endpoints) Withdraw(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, there := e.records[id]; there {
		e.add("withdraw %s", id)
	}
	delete(e.records, id)
}

func (e *endpoints) Settle(ctx context.Context, id string) []string {
	if end, ok := ctx.Deadline(); ok {
		e.mu.Lock()
		e.patience = time.Until(end)
		e.mu.Unlock()
	}
	e.add("settle %s", id)
	return nil
}

func (e *endpoints) Settled(ctx context.Context) []string {
	e.mu.Lock()
	slow := e.slow
	e.mu.Unlock()
	if slow != nil {
		select {
		case <-slow:
		case <-ctx.Done():
			return []string{"n2"}
		}
	}
	e.add("settled")
	return nil
}

func (e *endpoints) record(id string) (endpoint.Value, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	v, ok := e.records[id]
	return v, ok
}

// noted is the fake runtime with a journal of what was asked of it.
type noted struct {
	*fake.Runtime
	*journal
	names map[string]string // task ids by container id
	mu    sync.Mutex
	down  error // what Get says
}

func (r *noted) Create(ctx context.Context, c runtime.Container) error {
	r.mu.Lock()
	r.names[c.ID] = c.Labels["com.docker.swarm.task.id"]
	r.mu.Unlock()
	err := r.Runtime.Create(ctx, c)
	if err == nil {
		r.add("create %s", r.name(c.ID))
	}
	return err
}

func (r *noted) name(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[id]
}

func (r *noted) Start(ctx context.Context, id string) (int, error) {
	r.add("start %s", r.name(id))
	return r.Runtime.Start(ctx, id)
}

func (r *noted) Stop(ctx context.Context, id string, grace time.Duration) error {
	if st, err := r.Runtime.Get(ctx, id); err == nil && st.State == runtime.Running {
		r.add("stop %s", r.name(id))
	}
	return r.Runtime.Stop(ctx, id, grace)
}

func (r *noted) Get(ctx context.Context, id string) (runtime.Status, error) {
	r.mu.Lock()
	down := r.down
	r.mu.Unlock()
	if down != nil {
		return runtime.Status{}, down
	}
	return r.Runtime.Get(ctx, id)
}

func (r *noted) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = err
}

func (r *noted) Remove(ctx context.Context, id string) error {
	if _, err := r.Runtime.Get(ctx, id); err == nil {
		r.add("remove %s", r.name(id))
	}
	return r.Runtime.Remove(ctx, id)
}

// node is one node: what outlives its agent, and the agent of now.
type node struct {
	t *testing.T
	journal
	dir      string
	runtime  *noted
	network  *network
	table    *endpoints
	agent    *agent.Agent
	end      func()
	revision uint64
	scale    float64       // of agents that are booted
	ttl      time.Duration // of names, likewise
	ill      atomic.Bool   // what health checks find
	hang     atomic.Bool   // health checks do not end
	// alone has the containers that are no service's.
	alone standalones

	mu     sync.Mutex
	states map[string][]swarm.TaskState // every state that was reported
}

// program is what containers do, by their image's name.
func program(c runtime.Container) fake.Process {
	switch {
	case strings.Contains(c.Image, "done"):
		return fake.Process{Exits: true}
	case strings.Contains(c.Image, "broken"):
		return fake.Process{Exits: true, Exit: 3}
	case strings.Contains(c.Image, "odd"):
		return fake.Process{StartError: fmt.Errorf("exec: \"/program\": permission denied")}
	}
	return fake.Process{}
}

func newNode(t *testing.T) *node {
	n := &node{t: t, dir: t.TempDir(), states: map[string][]swarm.TaskState{}}
	n.network = &network{journal: &n.journal, attached: map[string]bool{}, live: map[string]bool{}, deaf: map[string]bool{}}
	n.runtime = &noted{journal: &n.journal, names: map[string]string{}, Runtime: fake.New(fake.Config{
		Images: []string{"web", "done", "broken", "odd", "checked"}, Run: func(c runtime.Container) fake.Process {
			p := program(c)
			p.Exec = func([]string) fake.Executed {
				return fake.Executed{Hangs: n.hang.Load(), Exit: map[bool]int{true: 1}[n.ill.Load()]}
			}
			return p
		},
	})}
	n.runtime.AddImage("exposed", "80/tcp")
	n.runtime.AddImage("exposes-two", "80/tcp", "443/tcp")
	n.boot()
	t.Cleanup(func() { n.halt() })
	return n
}

// boot starts an agent over what an earlier one left.
func (n *node) boot() {
	n.t.Helper()
	n.table = &endpoints{journal: &n.journal, records: map[string]endpoint.Value{}}
	a, err := agent.New(agent.Config{
		NodeID: "n1", Hostname: "host1", VTEP: netip.MustParseAddr("192.0.2.1"), Dir: n.dir,
		VolumeDir: filepath.Join(n.dir, "volumes"), Runtime: n.runtime, Network: n.network, Endpoints: n.table,
		Changed: func() {}, Now: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		ResolvConf: func(*api.Task) string { return "nameserver 127.0.0.11\n" }, Scale: n.scale, NameTTL: n.ttl, Standalone: &n.alone,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	started, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- a.Run(ctx, started) }()
	<-started
	reporting := make(chan struct{})
	go func() { defer close(reporting); n.report(ctx, a) }()
	n.agent = a
	n.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("the agent ended with %v", err)
		}
		<-reporting
	})
}

// report keeps every state that the agent reports.
func (n *node) report(ctx context.Context, a *agent.Agent) {
	n.note(a.All())
	for {
		select {
		case <-a.Wake():
			n.note(a.Unreported())
		case <-ctx.Done():
			n.note(a.Unreported())
			return
		}
	}
}

func (n *node) note(reports []api.TaskReport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range reports {
		if list := n.states[r.TaskID]; len(list) == 0 || list[len(list)-1] != r.Status.State {
			n.states[r.TaskID] = append(list, r.Status.State)
		}
	}
}

func (n *node) reported(id string) []swarm.TaskState {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.states[id])
}

// halt ends the agent; tasks go on.
func (n *node) halt() { n.end() }

func (n *node) restart() {
	n.t.Helper()
	n.halt()
	n.boot()
}

// assign gives the node the tasks in addition to, or instead of, what it has.
func (n *node) assign(full bool, tasks ...*api.Task) {
	n.t.Helper()
	var objects []api.Object
	for _, task := range tasks {
		objects = append(objects, task)
	}
	n.assignAll(full, objects...)
}

func (n *node) assignAll(full bool, objects ...api.Object) {
	n.t.Helper()
	n.revision++
	m := api.Assignment{Full: full, Revision: n.revision}
	for _, o := range objects {
		m.Ops = append(m.Ops, api.Op{Action: api.ActionUpdate, Object: o})
	}
	if err := n.agent.Apply(m); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) unassign(task *api.Task) {
	n.t.Helper()
	n.revision++
	m := api.Assignment{Revision: n.revision, Ops: []api.Op{{Action: api.ActionDelete, Object: task}}}
	if err := n.agent.Apply(m); err != nil {
		n.t.Fatal(err)
	}
}

// until waits for a condition.
func (n *node) until(what string, cond func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain for: %s\n%s", what, strings.Join(n.all(), "\n"))
		}
	}
}

func (n *node) untilState(id string, s swarm.TaskState) swarm.TaskStatus {
	n.t.Helper()
	n.until(fmt.Sprintf("task %s is %s", id, s), func() bool { st, _ := n.agent.Status(id); return st.State == s })
	st, _ := n.agent.Status(id)
	return st
}

func (n *node) untilGone(id string) {
	n.t.Helper()
	n.until("task "+id+" is gone", func() bool { _, here := n.agent.Status(id); return !here })
	if _, err := os.Stat(filepath.Join(n.dir, "tasks", id)); !os.IsNotExist(err) {
		n.t.Errorf("the directory of task %s is still there: %v", id, err)
	}
	if _, err := n.runtime.Get(context.Background(), agent.ContainerID(id)); err == nil {
		n.t.Errorf("the container of task %s is still there", id)
	}
}

// inOrder complains unless the lines happened, in that order.
func (n *node) inOrder(lines ...string) {
	n.t.Helper()
	all, at := n.all(), 0
	for _, line := range lines {
		i := slices.Index(all[at:], line)
		if i < 0 {
			n.t.Fatalf("%q did not happen in its place of\n%s", line, strings.Join(all, "\n"))
		}
		at += i + 1
	}
}

func (n *node) count(line string) (times int) {
	for _, l := range n.all() {
		if l == line {
			times++
		}
	}
	return times
}

// task is a wish for a task of the image.
func task(id, image string, desired swarm.TaskState) *api.Task {
	t := &api.Task{ServiceName: "web"}
	t.ID, t.ServiceID, t.NodeID, t.Slot, t.DesiredState = id, "svc", "n1", 1, desired
	grace := time.Second
	t.Spec.ContainerSpec = &swarm.ContainerSpec{Image: image, StopGracePeriod: &grace}
	t.Ports = []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080}}
	a := swarm.NetworkAttachment{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.1.3/24")}}
	a.Network.ID, a.Network.Spec.Name = "net", "front"
	t.NetworksAttachments = []swarm.NetworkAttachment{a}
	return t
}

func wish(t *api.Task, desired swarm.TaskState) *api.Task {
	out := *t
	out.DesiredState = desired
	return &out
}
