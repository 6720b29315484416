// Package agent carries out what the managers assign to a node: it keeps the
// assignments on disk, walks every task through its states (one worker per
// task, states only rise), publishes an endpoint while a task can be used, and
// reports. It never talks to a kernel or a socket itself: the runtime, the
// network and the endpoint table are interfaces that it declares.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/runtime"
	"shoal/overlay/endpoint"
)

// Network gives tasks their network namespace. Every method may be repeated.
type Network interface {
	// Adopt says that a task of an earlier run is still there, as it was wired.
	Adopt(task *api.Task) error
	// Attach makes the task's namespace and wires it; when it returns, names
	// and balancers work inside. It returns the namespace's path, "" for a task in
	// the node's own network, which has none and needs nothing.
	Attach(ctx context.Context, task *api.Task) (namespace string, err error)
	// SetLive says whether the task takes what is sent to it (host-mode ports).
	SetLive(taskID string, live bool)
	// Detach takes the namespace away.
	Detach(ctx context.Context, taskID string) error
	// Accepts says whether something in the task's namespace, or on the node for a
	// task in the node's own network, accepts TCP connections on all of the ports; no
	// ports means yes.
	Accepts(ctx context.Context, task *api.Task, ports []uint16) bool
	// Unheard counts the clients that have connected to the task and of whom its
	// program has read nothing yet.
	Unheard(taskID string) (int, error)
}

// Endpoints is the writer's side of the endpoint table.
type Endpoints interface {
	// Publish sets the endpoint of the task and tells the other nodes.
	Publish(taskID string, v endpoint.Value)
	// Withdraw removes it.
	Withdraw(taskID string)
	// Settle waits until every node that lives has applied what was published
	// last for the task, or ctx ends; it names the nodes that did not answer.
	Settle(ctx context.Context, taskID string) (missing []string)
	// Settled waits until every node that lives has applied all that was withdrawn
	// so far, or ctx ends; it names the nodes that did not answer. What it waited
	// for in vain once is not waited for again.
	Settled(ctx context.Context) (missing []string)
}

// Config of an Agent; all fields are needed but Addresses, Standalone, MachineHosts and Scale.
type Config struct {
	NodeID, Hostname string
	// VTEP is the address other nodes reach this node's endpoints at.
	VTEP netip.Addr
	// Addresses are those of a network that the node can give to a task; all when
	// it is nil.
	Addresses func([]netip.Prefix) []netip.Prefix
	// Dir is the agent's own directory: assignments, and one directory a task.
	Dir string
	// VolumeDir holds the node's named volumes.
	VolumeDir string
	Runtime   runtime.Runtime
	Network   Network
	Endpoints Endpoints
	// Standalone knows the containers that are no service's. It may be nil on a
	// node that has none.
	Standalone Standalone
	// Changed is called after every change of assignments or statuses.
	Changed func()
	Now     func() time.Time
	Logger  *slog.Logger
	// ResolvConf is what tasks get as /etc/resolv.conf.
	ResolvConf func(t *api.Task) string
	// MachineHosts is the machine's own /etc/hosts, which tasks in the node's own
	// network get; none when nil.
	MachineHosts func() string
	// NameTTL is how long whoever asked for a name may use a task's own address.
	NameTTL time.Duration
	// Scale stretches how long other nodes may take to confirm, as it does the pace
	// of the gossip that carries their answers; 0 is 1.
	Scale float64
}

// patience is how long other nodes may take for what they do within d on a quick
// machine.
func (c Config) patience(d time.Duration) time.Duration {
	if c.Scale <= 0 {
		return d
	}
	return time.Duration(float64(d) * c.Scale)
}

// Agent runs the tasks of one node.
type Agent struct {
	cfg Config
	ctx context.Context
	wg  sync.WaitGroup

	mu       sync.Mutex
	assigned *Assigned
	workers  map[string]*worker
	dirty    map[string]bool // tasks whose newest status is not yet reported
	wake     chan struct{}   // a task became dirty
	saves    chan struct{}
	earlier  []*worker // those of an earlier run's tasks
	levels   *levels
}

// New returns an Agent that knows what its directory tells of an earlier run.
func New(cfg Config) (*Agent, error) {
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "tasks"), 0o700); err != nil {
		return nil, fmt.Errorf("agent directory: %w", err)
	}
	assigned, err := LoadAssigned(cfg.Dir)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, assigned: assigned, workers: map[string]*worker{},
		dirty: map[string]bool{}, wake: make(chan struct{}, 1), saves: make(chan struct{}, 1),
	}
	a.levels = newLevels(assigned.Revision, a.signal)
	return a, nil
}

// Run works until ctx ends, then waits for its workers; running tasks are left
// alone. Apply may be called once Run has begun.
func (a *Agent) Run(ctx context.Context, started chan<- struct{}) error {
	a.mu.Lock()
	a.ctx = ctx
	a.syncWorkers()
	a.earlier = slices.Collect(maps.Values(a.workers))
	a.mu.Unlock()
	close(started) // the workers of an earlier run's tasks exist, see Restored
	defer a.wg.Wait()
	a.wg.Go(func() { a.settle(ctx) })
	for {
		select {
		case <-ctx.Done():
			return a.save()
		case <-a.saves:
			if err := a.save(); err != nil {
				return err
			}
		}
	}
}

// Apply takes one message of the managers' stream.
func (a *Agent) Apply(m api.Assignment) error {
	a.mu.Lock()
	a.assigned.apply(m)
	a.syncWorkers()
	a.mu.Unlock()
	if m.Full {
		a.sweep()
	}
	a.levels.advance(m)
	if !changes(m) {
		return nil
	}
	select {
	case a.saves <- struct{}{}:
	default:
	}
	a.cfg.Changed()
	return nil
}

// syncWorkers starts a worker for every new task and hands every worker the
// newest form of its task, nil when it is no longer assigned.
func (a *Agent) syncWorkers() {
	for id, t := range a.assigned.Tasks {
		t = a.dress(t)
		if a.workers[id] == nil {
			a.employ(newWorker(a, id, t))
		}
		a.workers[id].set(t)
	}
	for id, w := range a.workers {
		if a.assigned.Tasks[id] == nil {
			a.levels.hold(id)
			w.set(nil)
		}
	}
}

// employ is called with mu held. After the agent's end nobody is employed.
func (a *Agent) employ(w *worker) {
	a.workers[w.id] = w
	if a.ctx.Err() == nil {
		a.wg.Go(func() { w.run(a.ctx) })
	}
}

// Sighted returns when it is known of every task that an earlier run left whether
// it has outlived that, and those that have count again; or when ctx ends. What is
// in the kernel must not be compared with the wish before.
func (a *Agent) Sighted(ctx context.Context) {
	a.mu.Lock()
	earlier := a.earlier
	a.mu.Unlock()
	for _, w := range earlier {
		select {
		case <-w.known:
		case <-ctx.Done():
			return
		}
	}
}

// Restored returns when every task that an earlier run left is published again
// or known to have ended, or when ctx ends.
func (a *Agent) Restored(ctx context.Context) {
	a.mu.Lock()
	earlier := a.earlier
	a.mu.Unlock()
	for _, w := range earlier {
		select {
		case <-w.back:
		case <-ctx.Done():
			return
		}
	}
}

// forget drops a worker that has cleaned up after its task.
func (a *Agent) forget(id string) {
	a.mu.Lock()
	delete(a.workers, id)
	delete(a.dirty, id)
	a.syncWorkers() // the task may have been assigned again meanwhile
	a.mu.Unlock()
}

// Assigned returns what the node knows of the cluster; the caller must not
// change the objects in it.
func (a *Agent) Assigned() Assigned {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.assigned.clone()
}

// Task returns a task as it was assigned last, nil when it is not here.
func (a *Agent) Task(taskID string) *api.Task {
	a.mu.Lock()
	w := a.workers[taskID]
	a.mu.Unlock()
	if w == nil {
		return nil
	}
	_, seen := w.current()
	return seen
}

// Status returns a task's status on this node, and whether the task is here.
func (a *Agent) Status(taskID string) (swarm.TaskStatus, bool) {
	a.mu.Lock()
	w := a.workers[taskID]
	a.mu.Unlock()
	if w == nil {
		return swarm.TaskStatus{}, false
	}
	return w.status(), true
}

// report notes that a task has a new status for the managers.
func (a *Agent) report(id string) {
	a.mu.Lock()
	a.dirty[id] = true
	a.mu.Unlock()
	a.signal()
	a.cfg.Changed()
}

// signal says that there is something to report.
func (a *Agent) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Tell has the node described to the managers soon: something that is not the agent's
// has changed.
func (a *Agent) Tell() { a.signal() }

// Wake is signalled when there is something to report.
func (a *Agent) Wake() <-chan struct{} { return a.wake }

// Unreported takes the statuses that wait to be reported, each as it is now, so
// that later reports never tell of earlier states. What could not be delivered is
// given back by Requeue.
func (a *Agent) Unreported() []api.TaskReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]api.TaskReport, 0, len(a.dirty))
	for id := range a.dirty {
		if w := a.workers[id]; w != nil {
			out = append(out, api.TaskReport{TaskID: id, Status: w.status()})
		}
	}
	clear(a.dirty)
	return out
}

// Requeue notes that reports were not delivered.
func (a *Agent) Requeue(reports []api.TaskReport) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range reports {
		if a.workers[r.TaskID] != nil {
			a.dirty[r.TaskID] = true
		}
	}
}

// All returns the newest status of every task, for a new session.
func (a *Agent) All() []api.TaskReport {
	a.mu.Lock()
	workers := make([]*worker, 0, len(a.workers))
	for _, w := range a.workers {
		workers = append(workers, w)
	}
	clear(a.dirty)
	a.mu.Unlock()
	var out []api.TaskReport
	for _, w := range workers {
		if s := w.status(); s.State != "" {
			out = append(out, api.TaskReport{TaskID: w.id, Status: s})
		}
	}
	return out
}
