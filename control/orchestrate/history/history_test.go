package history

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/orchestrate/orchestratetest"
)

const (
	running  = swarm.TaskStateRunning
	failed   = swarm.TaskStateFailed
	shutdown = swarm.TaskStateShutdown
	going    = swarm.TaskStateRemove
)

func TestPlan(t *testing.T) {
	type state = orchestratetest.State
	past := func(s *state, count int) {
		for i := range count {
			s.Task(fmt.Sprint("old", i), 1, "n1", failed, time.Hour*time.Duration(i+1)).DesiredState = shutdown
		}
	}
	keep := func(s *state, n int64) { s.C.Spec.Orchestration.TaskHistoryRetentionLimit = &n }
	rows := []struct {
		name  string
		given func(*state)
		want  []string
	}{
		{"five with the live one", func(s *state) {
			s.Task("live", 1, "n1", running, time.Minute)
			past(s, 6)
		}, []string{"delete old4", "delete old5"}},
		{"the limit is the cluster's", func(s *state) { past(s, 3); keep(s, 2) }, []string{"delete old2"}},
		{"negative keeps all", func(s *state) { past(s, 9); keep(s, -1) }, []string{}},
		{"zero keeps what says that the slot exists", func(s *state) { past(s, 2); keep(s, 0) }, []string{"delete old1"}},
		{"attempts must be countable", func(s *state) {
			seven := uint64(7)
			s.S.Spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{MaxAttempts: &seven}
			past(s, 9)
		}, []string{"delete old8"}},
		{"what has not stopped stays", func(s *state) {
			past(s, 2)
			keep(s, 1)
			s.TaskMap["old1"].Status.State = running
		}, []string{}},
		{"removed and stopped", func(s *state) { s.Task("a", 1, "n1", shutdown, 0).DesiredState = going }, []string{"delete a"}},
		{"removed but running", func(s *state) { s.Task("a", 1, "n1", running, 0).DesiredState = going }, []string{}},
		{"removed and never placed", func(s *state) { s.Task("a", 1, "", swarm.TaskStatePending, 0).DesiredState = going }, []string{"delete a"}},
		{"removed on a dead node", func(s *state) {
			s.Task("a", 1, "n1", running, 0).DesiredState = going
			s.NodeMap["n1"].Status.State = swarm.NodeStateDown
		}, []string{"delete a"}},
		{"the service is gone", func(s *state) {
			s.Task("a", 1, "n1", running, 0)
			s.Task("b", 2, "n1", failed, 0)
			s.S = nil
		}, []string{"delete b", "remove a"}},
		{"the node is gone", func(s *state) {
			s.Task("a", 1, "n9", running, 0).DesiredState = shutdown
		}, []string{"orphan a"}},
		{"the node is dead for a day", func(s *state) {
			s.Task("a", 1, "n1", running, 0).DesiredState = shutdown
			s.NodeMap["n1"].Status.State, s.NodeMap["n1"].DownSince = swarm.NodeStateDown, s.Now.Add(-OrphanAfter)
		}, []string{"orphan a"}},
		{"the node is dead for an hour", func(s *state) {
			s.Task("a", 1, "n1", running, 0).DesiredState = shutdown
			s.NodeMap["n1"].Status.State, s.NodeMap["n1"].DownSince = swarm.NodeStateDown, s.Now.Add(-time.Hour)
		}, []string{}},
	}
	for _, r := range rows {
		s := orchestratetest.New(1)
		r.given(s)
		p := Plan(s.Now, s, "s")
		if got := orchestratetest.Words(p); !slices.Equal(got, r.want) {
			t.Errorf("%s: %v, want %v", r.name, got, r.want)
		}
		s.Do(p)
		if again := Plan(s.Now, s, "s"); len(again.Ops) != 0 {
			t.Errorf("%s: then %v", r.name, orchestratetest.Words(again))
		}
	}
}
