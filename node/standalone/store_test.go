package standalone

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/node/runtime"
	"shoal/node/runtime/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a node with its runtime, its managers, and an agent of three lines: it
// makes and starts the container of each task that is attached.
type world struct {
	t       *testing.T
	dir     string
	runtime *fake.Runtime
	store   *Store

	mu      sync.Mutex
	refuse  error  // what the managers say to a task
	fails   string // why the agent cannot make containers
	tasks   map[string]api.AttachRequest
	events  []events.Action
	outside bool // the node is in no swarm
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), tasks: map[string]api.AttachRequest{}}
	w.runtime = fake.New(fake.Config{Images: []string{"web:1"}, Run: func(c runtime.Container) fake.Process {
		return fake.Process{Output: c.Args, Echoes: c.OpenStdin}
	}})
	w.open()
	t.Cleanup(func() { w.store.Close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	s, err := Open(Config{
		Dir: filepath.Join(w.dir, "standalone"), VolumeDir: filepath.Join(w.dir, "volumes"), Runtime: w.runtime, Now: time.Now,
		Cluster: func() Cluster {
			if w.outside {
				return nil
			}
			return w
		},
		Emit: func(a events.Action, _ string, _ map[string]string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, a)
		},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = s
	s.Resume()
}

// Attach refuses what the managers refuse, and plays the agent.
func (w *world) Attach(ctx context.Context, r api.AttachRequest) (reply api.AttachReply, err error) {
	w.mu.Lock()
	refuse, fails := w.refuse, w.fails
	w.mu.Unlock()
	for _, n := range r.Networks {
		switch n.Target {
		case "open", "id-open":
			reply.Networks = append(reply.Networks, api.AttachedNetwork{ID: "id-open", Name: "open"})
		case "shut":
			return reply, api.Errorf(api.Forbidden, "network shut is not manually attachable")
		default:
			return reply, api.Errorf(api.NotFound, "network %s not found", n.Target)
		}
	}
	if r.TaskID == "" || refuse != nil {
		return reply, refuse
	}
	w.mu.Lock()
	w.tasks[r.TaskID] = r
	w.mu.Unlock()
	return reply, w.run(ctx, r, fails)
}

func (w *world) run(ctx context.Context, r api.AttachRequest, fails string) error {
	task := &api.Task{}
	task.ID, task.Spec.NetworkAttachmentSpec = r.TaskID, &swarm.NetworkAttachmentSpec{ContainerID: r.ContainerID}
	spec, _, ok := w.store.Wish(task)
	if !ok || fails != "" {
		w.store.Moved(r.TaskID, swarm.TaskStatus{State: swarm.TaskStateRejected, Err: fails})
		return nil
	}
	c := runtime.Container{ID: r.ContainerID, Name: r.Name, Image: spec.Image, Args: spec.Args, OpenStdin: spec.OpenStdin}
	err := w.runtime.Create(ctx, c)
	if api.KindOf(err) == api.Conflict {
		err = w.runtime.Renew(ctx, c)
	}
	if err != nil {
		return err
	}
	w.store.Made(ctx, c.ID)
	if _, err := w.runtime.Start(ctx, c.ID); err != nil {
		return err
	}
	w.store.Moved(r.TaskID, swarm.TaskStatus{State: swarm.TaskStateRunning})
	return nil
}

// Detach forgets a task.
func (w *world) Detach(_ context.Context, taskID string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.tasks, taskID)
	return nil
}

func (w *world) wish(name string, args ...string) Wish {
	return Wish{
		Name: name, Spec: swarm.ContainerSpec{Image: "web:1", Args: args}, Networks: []swarm.NetworkAttachmentConfig{{Target: "open"}},
		Config: &container.Config{}, Host: &container.HostConfig{},
	}
}

func (w *world) create(wish Wish) string {
	w.t.Helper()
	id, err := w.store.Create(w.t.Context(), wish)
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func (w *world) start(id string) {
	w.t.Helper()
	if err := w.store.Start(w.t.Context(), id); err != nil {
		w.t.Fatal(err)
	}
}

// wait waits for what somebody waits for.
func (w *world) wait(id string, until Until) func() int {
	w.t.Helper()
	wait, err := w.store.Wait(id, until)
	if err != nil {
		w.t.Fatal(err)
	}
	return func() int {
		ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
		defer cancel()
		code, err := wait(ctx)
		if err != nil {
			w.t.Fatalf("wait until %s: %v", until, err)
		}
		return code
	}
}

func (w *world) left() (names []string) {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.dir, "standalone"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.create(w.wish("box"))
	before := len(w.left())
	noImage, shut, nope := w.wish("a1"), w.wish("a2"), w.wish("a3")
	noImage.Spec.Image = "nope"
	shut.Networks[0].Target, nope.Networks[0].Target = "shut", "nope"
	for name, c := range map[string]struct {
		wish Wish
		kind api.ErrorKind
		text string
	}{
		"bad name":    {w.wish("a b"), api.Invalid, "Invalid container name (a b)"},
		"taken name":  {w.wish("box"), api.Conflict, `The container name "/box" is already in use`},
		"no image":    {noImage, api.NotFound, "No such image: nope:latest"},
		"shut":        {shut, api.Forbidden, "not manually attachable"},
		"no network":  {nope, api.Invalid, "network nope not found"}, // not 404, at which a client fetches the image
		"two of kind": {Wish{Name: "a4", Spec: noImage.Spec}, api.NotFound, "No such image"},
	} {
		_, err := w.store.Create(t.Context(), c.wish)
		if err == nil || api.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v (%s)", name, err, api.KindOf(err))
		}
	}
	w.outside = true
	if _, err := w.store.Create(t.Context(), w.wish("a5")); api.KindOf(err) != api.Unavailable {
		t.Errorf("in no swarm: %v", err)
	}
	if after := len(w.left()); after != before {
		t.Errorf("refusals leave %d directories, there were %d", after, before)
	}
}

// A container runs, ends, keeps its code, runs again as another task, and goes.
func TestLife(t *testing.T) {
	w := newWorld(t)
	id := w.create(w.wish("box"))
	if code := w.wait(id, NotRunning)(); code != 0 {
		t.Errorf("what never ran ended with %d", code)
	}
	next := w.wait(id, NextExit)
	w.start(id)
	if err := w.store.Start(t.Context(), id); !AlreadyRuns(err) {
		t.Errorf("a second start: %v", err)
	}
	first, _ := w.store.Get(id)
	if err := w.store.Remove(t.Context(), id, false, false); api.KindOf(err) != api.Conflict {
		t.Errorf("removed while it runs: %v", err)
	}
	if err := w.runtime.Exit(id, 5); err != nil {
		t.Fatal(err)
	}
	if code := next(); code != 5 {
		t.Errorf("it ended with %d", code)
	}
	w.start(id)
	second, _ := w.store.Get(id)
	if first.TaskID == "" || first.TaskID == second.TaskID || !w.store.Owns(id, second.TaskID) || w.store.Owns(id, first.TaskID) {
		t.Errorf("tasks %q and %q", first.TaskID, second.TaskID)
	}
	removed := w.wait(id, Removed)
	if err := w.store.Remove(t.Context(), id, true, false); err != nil {
		t.Fatal(err)
	}
	removed()
	if _, known := w.store.Get(id); known || w.store.Keeps(id) || len(w.left()) != 0 {
		t.Errorf("left: %v", w.left())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, want := range []events.Action{events.ActionCreate, events.ActionStart, events.ActionDie, events.ActionDestroy} {
		if !slices.Contains(w.events, want) {
			t.Errorf("no event %s in %v", want, w.events)
		}
	}
}

// With --rm the end is the end of everything, anonymous volumes too.
func TestAutoRemove(t *testing.T) {
	w := newWorld(t)
	wish := w.wish("box")
	wish.AutoRemove = true
	id := w.create(wish)
	volume := filepath.Join(w.dir, "volumes", id+"-data")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	removed := w.wait(id, Removed)
	w.start(id)
	if err := w.runtime.Exit(id, 3); err != nil {
		t.Fatal(err)
	}
	if code := removed(); code != 3 {
		t.Errorf("code %d", code)
	}
	if _, err := os.Stat(volume); len(w.left()) != 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v, volume %v", w.left(), err)
	}
}

// A start that fails leaves nothing among the managers, and nothing at all with --rm.
func TestStartFails(t *testing.T) {
	for name, spoil := range map[string]func(*world){
		"no address": func(w *world) { w.refuse = api.Errorf(api.Unavailable, "no address left") },
		"no program": func(w *world) { w.fails = "no such file or directory" },
	} {
		for _, autoRemove := range []bool{false, true} {
			w := newWorld(t)
			wish := w.wish("box")
			wish.AutoRemove = autoRemove
			id := w.create(wish)
			attached, err := w.store.Attach(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			spoil(w)
			err = w.store.Start(t.Context(), id)
			if err == nil || !strings.Contains(err.Error(), w.fails) || len(w.tasks) != 0 {
				t.Errorf("%s: %v, tasks %v", name, err, w.tasks)
			}
			if _, _, err := attached.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("%s: whoever is attached hears %v", name, err)
			}
			if r, known := w.store.Get(id); known == autoRemove || r.Wanted || (len(w.left()) == 0) != autoRemove {
				t.Errorf("%s with --rm %v: %+v, left %v", name, autoRemove, r, w.left())
			}
		}
	}
}

// Whoever attaches before the start hears the first byte.
func TestAttachBeforeStart(t *testing.T) {
	w := newWorld(t)
	wish := w.wish("box", "hello")
	wish.Spec.OpenStdin = true
	id := w.create(wish)
	early, err := w.store.Attach(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	w.start(id)
	if _, p, err := early.Next(); err != nil || string(p) != "hello\n" {
		t.Errorf("heard %q %v", p, err)
	}
	if _, err := early.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	end := w.wait(id, NotRunning)
	if err := early.CloseStdin(t.Context()); err != nil {
		t.Error(err)
	}
	if code := end(); code != 0 {
		t.Errorf("code %d", code)
	}
	if err := early.Close(); err != nil {
		t.Error(err)
	}
}

// A client that leaves before it started its --rm container leaves nothing; what was
// started, or is to stay, stays.
func TestAbandon(t *testing.T) {
	w := newWorld(t)
	goes, stays, runs := w.wish("goes"), w.wish("stays"), w.wish("runs")
	goes.AutoRemove, runs.AutoRemove = true, true
	ids := map[string]string{"goes": w.create(goes), "stays": w.create(stays), "runs": w.create(runs)}
	w.start(ids["runs"])
	for name, id := range ids {
		if err := w.store.Abandon(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if _, known := w.store.Get(id); known == (name == "goes") {
			t.Errorf("%s: known %v", name, known)
		}
	}
}

// A restart of the node finds what ran, and clears away what ended with --rm.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	once := w.wish("once")
	once.AutoRemove = true
	box, gone := w.create(w.wish("box")), w.create(once)
	w.start(box)
	w.start(gone)
	w.store.Close()
	if err := w.runtime.Exit(gone, 1); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(w.dir, "standalone", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.open()
	removed, err := w.store.Wait(gone, Removed)
	if err == nil { // it may be gone already
		if _, err := removed(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r, _ := w.store.Get(box); !r.Wanted || r.Name != "box" || !slices.Equal(w.left(), []string{box}) {
		t.Errorf("found %+v, left %v", r, w.left())
	}
	if err := w.store.Clear(t.Context()); err != nil || len(w.left()) != 0 {
		t.Errorf("after all: %v %v", w.left(), err)
	}
}
