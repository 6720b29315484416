package leader

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/control/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log is a Raft log of one: it commits in order and may be told to fail.
type log struct {
	sync.Mutex
	store *store.Store
	// fail is asked before each proposal; its error is the answer.
	fail func(ops []api.Op) error
}

func (l *log) propose(_ context.Context, now time.Time, ops []api.Op) error {
	l.Lock()
	defer l.Unlock()
	if l.fail != nil {
		if err := l.fail(ops); err != nil {
			return err
		}
	}
	return l.store.Commit(l.store.View().Index()+1, now, ops)
}

// start runs the loop on the model's store until the test ends.
func start(t *testing.T, m *model, fail func([]api.Op) error) (l *log, result chan error) {
	t.Helper()
	m.stop()
	l = &log{store: m.store, fail: fail}
	ctx, stop := context.WithCancel(context.Background())
	result = make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		result <- Run(ctx, Config{Store: m.store, Propose: l.propose, Logger: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() { stop(); <-done })
	return l, result
}

func (l *log) must(t *testing.T, ops ...api.Op) {
	t.Helper()
	l.Lock()
	defer l.Unlock()
	if err := l.store.Commit(l.store.View().Index()+1, time.Now(), ops); err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition of the state.
func until(t *testing.T, s *store.Store, what string, holds func(*store.View) bool) {
	t.Helper()
	limit := time.After(10 * time.Second)
	for {
		changed := s.Changed()
		if holds(s.View()) {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("it never came that %s", what)
		}
	}
}

func assigned(v *store.View, service string) int {
	count := 0
	for _, t := range v.TasksByService(service) {
		if t.Status.State == swarm.TaskStateAssigned {
			count++
		}
	}
	return count
}

func service(name string, replicas uint64) *api.Service {
	s := &api.Service{}
	s.ID, s.Spec = name, replicatedSpec(name, replicas)
	return s
}

func TestRunAnswersChanges(t *testing.T) {
	m := newModel(t, 3)
	l, _ := start(t, m, nil)
	l.must(t, api.Create(service("web", 6)))
	until(t, m.store, "6 tasks are assigned", func(v *store.View) bool { return assigned(v, "web") == 6 })
	l.must(t, api.Create(service("big", 1200)))
	until(t, m.store, "1200 tasks are assigned", func(v *store.View) bool { return assigned(v, "big") == 1200 })
}

func TestRunPlansAgainWithoutQuorumAndAfterRefusals(t *testing.T) {
	m := newModel(t, 3)
	answers := []error{
		api.Errorf(api.Unavailable, "no quorum"), nil, api.Errorf(api.OutOfSequence, "update out of sequence"),
		api.Errorf(api.Unavailable, "no quorum"),
	}
	l, _ := start(t, m, func([]api.Op) error {
		if len(answers) == 0 {
			return nil
		}
		next := answers[0]
		answers = answers[1:]
		return next
	})
	l.must(t, api.Create(service("web", 6)))
	until(t, m.store, "6 tasks are assigned", func(v *store.View) bool { return assigned(v, "web") == 6 })
}

func TestRunSetsARefusedServiceAside(t *testing.T) {
	m := newModel(t, 3)
	l, _ := start(t, m, func(ops []api.Op) error {
		for _, op := range ops {
			if task, ok := op.Object.(*api.Task); ok && task.ServiceID == "bad" {
				return api.Errorf(api.Internal, "no")
			}
		}
		return nil
	})
	l.must(t, api.Create(service("bad", 2)), api.Create(service("web", 6)))
	until(t, m.store, "6 tasks are assigned", func(v *store.View) bool { return assigned(v, "web") == 6 })
}

func TestRunEndsLoudly(t *testing.T) {
	m := newModel(t, 3)
	broken := errors.New("the disk is gone")
	_, result := start(t, m, func([]api.Op) error { return broken })
	select {
	case err := <-result:
		if !errors.Is(err, broken) {
			t.Errorf("Run returned %v", err)
		}
		result <- nil
	case <-time.After(10 * time.Second):
		t.Error("Run goes on")
	}
}

// TestWaitSeesWhatWasKept: a commit that came between the view and the reading of
// the changes must not wait for the next one.
func TestWaitSeesWhatWasKept(t *testing.T) {
	s := store.New()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	session := newSession(Config{Store: s, Clock: system{}, Logger: slog.New(slog.DiscardHandler)}, s.Subscribe(ctx, subscription))
	node := &api.Node{}
	node.ID = "n1"
	if err := s.Commit(1, time.Now(), []api.Op{api.Create(node)}); err != nil {
		t.Fatal(err)
	}
	session.keep(<-session.changes, true)
	if err := session.wait(ctx); err != nil {
		t.Fatal(err)
	}
	if session.view.Node("n1") == nil {
		t.Error("the commit was not taken in")
	}
}
