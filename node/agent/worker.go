package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// worker walks one task through its states. Its goroutine alone changes local;
// the task is handed in from outside.
type worker struct {
	a  *Agent
	id string

	saving  sync.Mutex
	mu      sync.Mutex
	task    *api.Task // nil: no longer assigned
	seen    *api.Task // the last assigned form, kept for cleaning up
	local   local
	changed chan struct{} // holds one token after every set
	back    chan struct{} // closed by settled, once: the task is where a restart found it
	settled func()
	known   chan struct{} // closed by sighted, once: whether the task outlived the restart
	sighted func()
	made    bool              // everything that a start needs was made by this run
	health  *container.Health // replaced, never changed; nil without a health check
}

// local is what a node must remember of a task to go on after a restart.
type local struct {
	Status swarm.TaskStatus
	// Detached says that the namespace of a finished task is gone.
	Detached bool
	// Check is the task's health check, nil without one. Unhealthy says that it
	// failed: the task is to end.
	Check     *Check `json:",omitempty"`
	Unhealthy bool   `json:",omitempty"`
	// Container is the container's id where it is not the task's own, see ContainerID.
	Container string `json:",omitempty"`
	// Exposed are the TCP ports that the image says its program listens on.
	Exposed []uint16 `json:",omitempty"`
}

func newWorker(a *Agent, id string, t *api.Task) *worker {
	w := &worker{a: a, id: id, task: t, seen: t, local: local{Container: standaloneContainer(t)}, changed: make(chan struct{}, 1), back: make(chan struct{}), known: make(chan struct{})}
	w.settled = sync.OnceFunc(func() { close(w.back) })
	w.sighted = sync.OnceFunc(func() { close(w.known) })
	return w
}

// ContainerID is the id of a task's container: derived from the task's, so that
// a restart in the middle of a creation finds what it made.
func ContainerID(taskID string) string {
	sum := sha256.Sum256([]byte("shoal task " + taskID))
	return hex.EncodeToString(sum[:])
}

func (w *worker) set(t *api.Task) {
	w.mu.Lock()
	w.task = t
	if t != nil {
		w.seen = t
	}
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *worker) current() (task, seen *api.Task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.task, w.seen
}

func (w *worker) status() swarm.TaskStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.local.Status
}

func (w *worker) dir() string { return filepath.Join(w.a.cfg.Dir, "tasks", w.id) }

// run takes one transition after another until the task is gone or ctx ends.
func (w *worker) run(ctx context.Context) {
	defer w.settled()
	defer w.sighted()
	if err := w.load(); err != nil {
		w.fail(swarm.TaskStateFailed, err)
	}
	if err := w.resume(ctx); err != nil && ctx.Err() == nil {
		w.fail(swarm.TaskStateFailed, err)
	}
	w.sighted()
	if s := w.status().State; api.Rank(s) < api.Rank(swarm.TaskStateRunning) || api.Terminal(s) {
		w.settled() // what takes no part yet may take long, and holds nothing up
	}
	for ctx.Err() == nil {
		task, _ := w.current()
		if task == nil {
			if w.cleanUp(ctx) {
				return
			}
			continue
		}
		w.step(ctx, task)
	}
}

// step does the one thing that the task's state and wish ask for, and returns
// when something has changed.
func (w *worker) step(ctx context.Context, t *api.Task) {
	state := w.status().State
	switch {
	case api.Terminal(state):
		w.settleDown(ctx, t)
	case !t.Wanted():
		w.shutDown(ctx, t)
	case state == "":
		w.advance(swarm.TaskStateAccepted, "accepted")
	case api.Rank(state) < api.Rank(swarm.TaskStateStarting) && !w.made:
		w.prepare(ctx, t)
	case api.Rank(state) < api.Rank(swarm.TaskStateStarting):
		if api.Rank(t.DesiredState) < api.Rank(swarm.TaskStateRunning) {
			w.wait(ctx)
			return
		}
		w.start(ctx, t)
	default:
		w.watch(ctx, t)
	}
}

func (w *worker) wait(ctx context.Context) {
	select {
	case <-w.changed:
	case <-ctx.Done():
	}
}

// settleDown frees what a finished task no longer needs and waits for its end.
// The container of a task that failed for another reason than its exit may
// still run.
func (w *worker) settleDown(ctx context.Context, t *api.Task) {
	if !w.local.Detached {
		w.a.cfg.Endpoints.Withdraw(w.id)
		err := w.stop(ctx, t)
		if err == nil {
			err = w.a.cfg.Network.Detach(ctx, w.id)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.a.cfg.Logger.Error("a finished task keeps its namespace", "task", w.id, "error", err)
			pause(ctx, retryDelay)
			return
		}
		w.mu.Lock()
		w.local.Detached = true
		w.mu.Unlock()
		w.persist()
	}
	w.a.levels.release(w.id)
	w.wait(ctx)
}

// cleanUp removes everything of a task that is no longer assigned, and says
// whether the worker is done.
func (w *worker) cleanUp(ctx context.Context) bool {
	if t, seen := w.current(); t == nil && seen != nil && !api.Terminal(w.status().State) && w.status().State != "" {
		w.shutDown(ctx, seen)
		if ctx.Err() != nil {
			return false
		}
	}
	w.a.cfg.Endpoints.Withdraw(w.id)
	err := errors.Join(
		w.removeContainer(ctx),
		w.a.cfg.Network.Detach(ctx, w.id),
	)
	if err == nil {
		err = os.RemoveAll(w.dir())
	}
	if err != nil {
		w.a.cfg.Logger.Error("a removed task leaves something behind", "task", w.id, "error", err)
		pause(ctx, retryDelay)
		return false
	}
	w.a.forget(w.id)
	w.a.levels.release(w.id) // not earlier: who is not forgotten is held
	return true
}

// advance records and reports a state.
func (w *worker) advance(s swarm.TaskState, message string) {
	w.update(func(st *swarm.TaskStatus) { st.State, st.Message, st.Err = s, message, "" })
}

// fail ends the task with an error.
func (w *worker) fail(s swarm.TaskState, err error) {
	w.update(func(st *swarm.TaskStatus) { st.State, st.Message, st.Err = s, string(s), err.Error() })
}

func (w *worker) update(change func(*swarm.TaskStatus)) {
	w.mu.Lock()
	st := w.local.Status
	was := st.State
	if st.ContainerStatus != nil {
		c := *st.ContainerStatus
		st.ContainerStatus = &c
	}
	change(&st)
	if api.Rank(st.State) < api.Rank(was) {
		w.mu.Unlock()
		panic(fmt.Sprintf("agent: task %s would fall from %s to %s", w.id, was, st.State))
	}
	st.Timestamp = w.a.cfg.Now()
	if api.Terminal(st.State) {
		w.a.levels.hold(w.id) // before anybody can report it
	}
	w.local.Status = st
	w.mu.Unlock()
	w.persist()
	w.a.report(w.id)
	if w.isStandalone() {
		w.a.cfg.Standalone.Moved(w.id, st)
	}
}

func (w *worker) persist() {
	w.saving.Lock() // one after the other, so that the newest state is what stays
	defer w.saving.Unlock()
	w.mu.Lock()
	raw, err := json.Marshal(w.local)
	w.mu.Unlock()
	if err == nil {
		err = errors.Join(os.MkdirAll(w.dir(), 0o700), writeFile(filepath.Join(w.dir(), "state.json"), raw))
	}
	if err != nil {
		w.a.cfg.Logger.Error("a task's state cannot be kept on disk; a restart would not know it", "task", w.id, "error", err)
	}
}

func (w *worker) load() error {
	raw, err := os.ReadFile(filepath.Join(w.dir(), "state.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the task's state of an earlier run: %w", err)
	}
	var l local
	if err := json.Unmarshal(raw, &l); err != nil {
		return fmt.Errorf("the task's state of an earlier run in %s: %w", w.dir(), err)
	}
	if api.Terminal(l.Status.State) {
		w.a.levels.holdAll(w.id)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.Container == "" {
		l.Container = w.local.Container
	}
	w.local = l
	return nil
}
