package update

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/orchestrate/orchestratetest"
)

const (
	running  = swarm.TaskStateRunning
	failed   = swarm.TaskStateFailed
	shutdown = swarm.TaskStateShutdown
)

type state = orchestratetest.State

// three returns three running tasks of version one, and a service of version two.
func three(config swarm.UpdateConfig) *state {
	s := orchestratetest.New(3)
	s.S.Spec.UpdateConfig, s.S.Spec.RollbackConfig = &config, &config
	s.Task("a", 1, "n1", running, time.Hour)
	s.Task("b", 2, "n2", running, time.Hour)
	s.Task("c", 3, "n3", running, time.Hour)
	s.Change(func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Image = "two" })
	return s
}

// step plans, compares and carries out.
func step(t *testing.T, s *state, what string, want ...string) {
	t.Helper()
	p := Plan(s.Now, s, s.S, s.NewID)
	if got := orchestratetest.Words(p); !slices.Equal(got, want) && len(got)+len(want) > 0 {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	s.Do(p)
	if again := Plan(s.Now, s, s.S, s.NewID); len(again.Ops) != 0 {
		t.Fatalf("%s: then %v %v", what, orchestratetest.Words(again), again.Ops)
	}
}

// become moves a task on.
func become(s *state, id string, to swarm.TaskState) {
	c := *s.TaskMap[id]
	c.Status.State, c.Status.Timestamp = to, s.Now
	if to == running {
		c.StartedAt = s.Now
	}
	s.TaskMap[id] = &c
}

func status(t *testing.T, s *state, want swarm.UpdateState, message string) {
	t.Helper()
	if st := s.S.UpdateStatus; st == nil || st.State != want || !strings.HasPrefix(st.Message, message) {
		t.Fatalf("status %+v, want %s %q", st, want, message)
	}
}

func TestStopFirst(t *testing.T) {
	s := three(swarm.UpdateConfig{Parallelism: 1, Delay: 10 * time.Second})
	step(t, s, "start", "new 1 later", "stop a")
	status(t, s, swarm.UpdateStateUpdating, "update in progress")
	become(s, "a", shutdown)
	step(t, s, "stopped")
	become(s, "new001", running)
	step(t, s, "the delay begins")
	s.Now = s.Now.Add(10 * time.Second)
	step(t, s, "the delay is over", "new 2 later", "stop b")
	become(s, "b", shutdown)
	become(s, "new002", running)
	s.Now = s.Now.Add(10 * time.Second)
	step(t, s, "the last", "new 3 later", "stop c")
	become(s, "c", shutdown)
	become(s, "new003", running)
	s.Now = s.Now.Add(9 * time.Second)
	step(t, s, "not yet")
	s.Now = s.Now.Add(time.Second)
	step(t, s, "done")
	status(t, s, swarm.UpdateStateCompleted, "update completed")
}

func TestStartFirst(t *testing.T) {
	s := three(swarm.UpdateConfig{Parallelism: 2, Order: swarm.UpdateOrderStartFirst})
	step(t, s, "start", "new 1", "new 2")
	become(s, "new001", running)
	step(t, s, "the next", "new 3")
}

func TestParallelismZeroIsAll(t *testing.T) {
	s := three(swarm.UpdateConfig{})
	step(t, s, "start", "new 1 later", "new 2 later", "new 3 later", "stop a", "stop b", "stop c")
}

func TestWhatDoesNotRunComesFirst(t *testing.T) {
	s := three(swarm.UpdateConfig{Parallelism: 1})
	s.TaskMap["c"].Status.State = failed
	step(t, s, "start", "new 3", "stop c")
}

func TestCompletionWaitsForTheMonitor(t *testing.T) {
	s := three(swarm.UpdateConfig{Monitor: 7 * time.Second})
	step(t, s, "start", "new 1 later", "new 2 later", "new 3 later", "stop a", "stop b", "stop c")
	for _, id := range []string{"new001", "new002", "new003"} {
		become(s, id, running)
	}
	p := Plan(s.Now, s, s.S, s.NewID)
	if len(p.Ops) != 0 || !p.Wake.Equal(s.Now.Add(7*time.Second)) {
		t.Fatalf("%v, wake %s", p.Ops, p.Wake)
	}
	s.Now = p.Wake
	step(t, s, "done")
	status(t, s, swarm.UpdateStateCompleted, "update completed")
}

func TestFailureActions(t *testing.T) {
	rows := []struct {
		action  swarm.FailureAction
		ratio   float32
		state   swarm.UpdateState
		message string
		image   string
		want    []string
	}{
		{"", 0, swarm.UpdateStatePaused, "update paused due to failure or early termination of task new001", "two", nil},
		{swarm.UpdateFailureActionPause, 0.5, swarm.UpdateStateUpdating, "update in progress", "two", []string{"new 2 later", "stop b"}},
		{swarm.UpdateFailureActionContinue, 0, swarm.UpdateStateUpdating, "update in progress", "two", []string{"new 2 later", "stop b"}},
		{swarm.UpdateFailureActionRollback, 0, swarm.UpdateStateRollbackStarted, "update rolled back due to failure or early termination of task new001", "one", nil},
	}
	for _, r := range rows {
		s := three(swarm.UpdateConfig{Parallelism: 1, FailureAction: r.action, MaxFailureRatio: r.ratio})
		step(t, s, "start", "new 1 later", "stop a")
		become(s, "a", shutdown)
		become(s, "new001", failed)
		if r.ratio > 0 || r.action == swarm.UpdateFailureActionContinue {
			// Its slot was given another task that runs.
			s.TaskMap["new001"].DesiredState = shutdown
			s.Now = s.Now.Add(time.Second)
			s.Task("again", 1, "n1", running, 0).StartedAt = s.Now
			step(t, s, string(r.action), r.want...)
		} else {
			s.Do(Plan(s.Now, s, s.S, s.NewID))
		}
		status(t, s, r.state, r.message)
		if got := s.S.Spec.TaskTemplate.ContainerSpec.Image; got != r.image {
			t.Errorf("%s: the image is %s", r.action, got)
		}
	}
}

func TestRollbackIsNotRolledBack(t *testing.T) {
	s := three(swarm.UpdateConfig{FailureAction: swarm.UpdateFailureActionRollback})
	started := s.Now
	s.S.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateStateRollbackStarted, StartedAt: &started}
	step(t, s, "start", "new 1 later", "new 2 later", "new 3 later", "stop a", "stop b", "stop c")
	become(s, "new001", failed)
	step(t, s, "failed")
	status(t, s, swarm.UpdateStateRollbackPaused, "rollback paused due to failure or early termination of task new001")
}

func TestLateFailureIsNoUpdateFailure(t *testing.T) {
	s := three(swarm.UpdateConfig{Parallelism: 1, Monitor: 5 * time.Second})
	step(t, s, "start", "new 1 later", "stop a")
	become(s, "a", shutdown)
	become(s, "new001", running)
	s.Now = s.Now.Add(6 * time.Second)
	become(s, "new001", failed)
	s.TaskMap["new001"].DesiredState = shutdown
	step(t, s, "late", "new 2 later", "stop b")
	status(t, s, swarm.UpdateStateUpdating, "update in progress")
}

func TestScaleOrLabelIsNoUpdate(t *testing.T) {
	s := orchestratetest.New(1)
	s.Task("a", 1, "n1", running, time.Hour)
	s.Change(func(spec *swarm.ServiceSpec) { spec.Labels = map[string]string{"a": "b"} })
	step(t, s, "label")
	if s.S.UpdateStatus != nil {
		t.Errorf("status %+v", s.S.UpdateStatus)
	}
}

func TestManualRollbackCompletes(t *testing.T) {
	s := orchestratetest.New(1)
	s.Task("a", 1, "n1", running, time.Hour)
	s.Change(func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Image = "two" })
	started := s.Now
	s.S.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateStateRollbackStarted, StartedAt: &started, Message: "manually requested rollback"}
	step(t, s, "start", "new 1 later", "stop a")
	become(s, "a", shutdown)
	become(s, "new001", running)
	s.Now = s.Now.Add(time.Minute)
	step(t, s, "done")
	status(t, s, swarm.UpdateStateRollbackCompleted, "rollback completed")
}
