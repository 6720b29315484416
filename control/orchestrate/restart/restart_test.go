package restart

import (
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/orchestrate/orchestratetest"
)

const (
	running  = swarm.TaskStateRunning
	failed   = swarm.TaskStateFailed
	complete = swarm.TaskStateComplete
	shutdown = swarm.TaskStateShutdown
)

type state = orchestratetest.State

func policy(s *state, condition swarm.RestartPolicyCondition, delay time.Duration, attempts uint64, window time.Duration) {
	s.S.Spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{
		Condition: condition, Delay: &delay, MaxAttempts: &attempts, Window: &window,
	}
}

func TestPlan(t *testing.T) {
	rows := []struct {
		name  string
		given func(*state)
		want  []string
		wake  time.Duration
	}{
		{"a failed task is replaced after the default delay", func(s *state) {
			s.Task("a", 1, "n1", failed, time.Hour)
		}, []string{"new 1 later", "stop a"}, DefaultDelay},
		{"a completed one too", func(s *state) {
			s.Task("a", 1, "n1", complete, time.Hour)
		}, []string{"new 1 later", "stop a"}, DefaultDelay},
		{"one that was rejected while it was prepared waits for its own delay first", func(s *state) {
			s.Task("a", 1, "n1", swarm.TaskStateRejected, 0).StartAfter = s.Now.Add(3 * time.Second)
		}, []string{"stop a"}, 3 * time.Second},
		{"but not with another spec", func(s *state) {
			s.Task("a", 1, "n1", swarm.TaskStateRejected, 0).StartAfter = s.Now.Add(3 * time.Second)
			s.S.SpecVersion.Index++
		}, []string{"new 1 later", "stop a"}, DefaultDelay},
		{"without delay at once", func(s *state) {
			policy(s, swarm.RestartPolicyConditionAny, 0, 0, 0)
			s.Task("a", 1, "n1", failed, time.Hour)
		}, []string{"new 1", "stop a"}, 0},
		{"on-failure: not after success", func(s *state) {
			policy(s, swarm.RestartPolicyConditionOnFailure, time.Second, 0, 0)
			s.Task("a", 1, "n1", complete, time.Hour)
		}, []string{"stop a"}, 0},
		{"on-failure: after a failure", func(s *state) {
			policy(s, swarm.RestartPolicyConditionOnFailure, time.Second, 0, 0)
			s.Task("a", 1, "n1", failed, time.Hour)
		}, []string{"new 1 later", "stop a"}, time.Second},
		{"none: never", func(s *state) {
			policy(s, swarm.RestartPolicyConditionNone, time.Second, 0, 0)
			s.Task("a", 1, "n1", failed, time.Hour)
		}, []string{"stop a"}, 0},
		{"attempts left", func(s *state) {
			policy(s, swarm.RestartPolicyConditionAny, time.Second, 2, 0)
			s.Task("a", 1, "n1", failed, time.Hour)
			s.Task("b", 1, "n1", failed, 2*time.Hour).DesiredState = shutdown
		}, []string{"new 1 later", "stop a"}, time.Second},
		{"no attempts left", func(s *state) {
			policy(s, swarm.RestartPolicyConditionAny, time.Second, 1, 0)
			s.Task("a", 1, "n1", failed, time.Hour)
			s.Task("b", 1, "n1", failed, 2*time.Hour).DesiredState = shutdown
		}, []string{"stop a"}, 0},
		{"attempts outside of the window do not count", func(s *state) {
			policy(s, swarm.RestartPolicyConditionAny, time.Second, 1, time.Minute)
			s.Task("a", 1, "n1", failed, time.Hour)
			b := s.Task("b", 1, "n1", failed, 2*time.Hour)
			b.DesiredState, b.Status.Timestamp = shutdown, s.Now.Add(-time.Hour)
		}, []string{"new 1 later", "stop a"}, time.Second},
		{"a task that was given up is replaced at once, whatever the policy", func(s *state) {
			policy(s, swarm.RestartPolicyConditionNone, time.Second, 0, 0)
			s.Task("a", 1, "n1", running, time.Hour).DesiredState = shutdown
		}, []string{"new 1"}, 0},
		{"one that was told to stop and has, too", func(s *state) {
			s.Task("a", 1, "n1", shutdown, time.Hour).DesiredState = shutdown
		}, []string{"new 1"}, 0},
		{"a running task is left alone", func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.Task("b", 1, "n1", failed, 2*time.Hour).DesiredState = shutdown
		}, []string{}, 0},
		{"a delayed task waits", func(s *state) {
			a := s.Task("a", 1, "n1", swarm.TaskStateReady, time.Second)
			a.DesiredState, a.StartAfter = swarm.TaskStateReady, s.Now.Add(3*time.Second)
		}, []string{}, 3 * time.Second},
		{"a delayed task's time has come", func(s *state) {
			a := s.Task("a", 1, "n1", swarm.TaskStateReady, time.Second)
			a.DesiredState, a.StartAfter = swarm.TaskStateReady, s.Now
		}, []string{"run a"}, 0},
		{"it waits for its predecessor", func(s *state) {
			s.Task("a", 1, "n1", swarm.TaskStateReady, time.Second).DesiredState = swarm.TaskStateReady
			s.Task("b", 1, "n1", running, time.Hour).DesiredState = shutdown
		}, []string{}, 0},
		{"but not for one on a dead node", func(s *state) {
			s.Task("a", 1, "n1", swarm.TaskStateReady, time.Second).DesiredState = swarm.TaskStateReady
			s.Task("b", 1, "n2", running, time.Hour).DesiredState = shutdown
			s.NodeMap["n2"].Status.State = swarm.NodeStateDown
		}, []string{"run a"}, 0},
		{"start-first: the failed new one is not replaced while the old one runs", func(s *state) {
			s.Task("b", 1, "n1", running, time.Hour)
			s.Task("a", 1, "n1", failed, time.Second)
		}, []string{"stop a"}, 0},
	}
	for _, r := range rows {
		s := orchestratetest.New(1)
		r.given(s)
		p := Plan(s.Now, s, s.S, s.NewID)
		if got := orchestratetest.Words(p); !slices.Equal(got, r.want) {
			t.Errorf("%s: %v, want %v", r.name, got, r.want)
		}
		wake := time.Duration(0)
		if !p.Wake.IsZero() {
			wake = p.Wake.Sub(s.Now)
		}
		if wake != r.wake {
			t.Errorf("%s: wakes after %s, want %s", r.name, wake, r.wake)
		}
		s.Do(p)
		if again := Plan(s.Now, s, s.S, s.NewID); len(again.Ops) != 0 {
			t.Errorf("%s: then %v", r.name, orchestratetest.Words(again))
		}
	}
}

func TestPausedUpdateKeepsTheOldVersion(t *testing.T) {
	for _, state := range []swarm.UpdateState{swarm.UpdateStatePaused, swarm.UpdateStateUpdating} {
		s := orchestratetest.New(1)
		s.Task("a", 1, "n1", failed, time.Hour)
		s.Change(func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Image = "two" })
		s.S.UpdateStatus = &swarm.UpdateStatus{State: state}
		s.Do(Plan(s.Now, s, s.S, s.NewID))
		want := map[swarm.UpdateState]string{swarm.UpdateStatePaused: "one", swarm.UpdateStateUpdating: "two"}[state]
		if got := s.TaskMap["new001"].Spec.ContainerSpec.Image; got != want {
			t.Errorf("%s: the new task is of version %s", state, got)
		}
	}
}
