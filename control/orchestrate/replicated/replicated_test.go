package replicated

import (
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/orchestrate/orchestratetest"
)

const running = swarm.TaskStateRunning

func TestPlan(t *testing.T) {
	type state = orchestratetest.State
	rows := []struct {
		name     string
		replicas uint64
		given    func(*state)
		want     []string
	}{
		{"from nothing", 2, func(*state) {}, []string{"new 1", "new 2"}},
		{"a gap is filled", 3, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.Task("c", 3, "n1", running, time.Hour)
		}, []string{"new 2"}},
		{"a slot whose task ended exists", 1, func(s *state) {
			s.Task("a", 1, "n1", swarm.TaskStateComplete, time.Hour).DesiredState = swarm.TaskStateShutdown
		}, []string{}},
		{"a slot that is being removed does not", 1, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour).DesiredState = swarm.TaskStateRemove
		}, []string{"new 1"}},
		{"fewer: what does not run goes first", 2, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.Task("b", 2, "n2", swarm.TaskStatePreparing, time.Hour)
			s.Task("c", 3, "n3", running, time.Hour)
		}, []string{"remove b"}},
		{"fewer: then from the fullest node", 2, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.Task("b", 2, "n2", running, time.Hour)
			s.Task("c", 3, "n2", running, time.Hour)
			s.Task("d", 4, "n2", running, time.Hour)
		}, []string{"remove c", "remove d"}},
		{"a removed slot's history goes too", 0, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.Task("b", 1, "n1", swarm.TaskStateFailed, 2*time.Hour).DesiredState = swarm.TaskStateShutdown
		}, []string{"remove a", "remove b"}},
		{"a dead node's task is given up", 1, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.NodeMap["n1"].Status.State = swarm.NodeStateDown
		}, []string{"stop a"}},
		{"a removed node's task is given up", 1, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			delete(s.NodeMap, "n1")
		}, []string{"stop a"}},
		{"a drained node's task is given up", 1, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.NodeMap["n1"].Spec.Availability = swarm.NodeAvailabilityDrain
		}, []string{"stop a"}},
		{"a paused or unknown node keeps its task", 2, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.Task("b", 2, "n2", running, time.Hour)
			s.NodeMap["n1"].Spec.Availability = swarm.NodeAvailabilityPause
			s.NodeMap["n2"].Status.State = swarm.NodeStateUnknown
		}, []string{}},
		{"a node that lost a needed label gives up its task", 1, func(s *state) {
			s.S.Spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.x == y"}}
			s.Task("a", 1, "n1", running, time.Hour)
		}, []string{"stop a"}},
		{"two of one version are one too many", 1, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.Task("b", 1, "n2", swarm.TaskStatePreparing, time.Minute)
		}, []string{"stop b"}},
		{"start-first: the old one stays until the new one runs", 1, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.Change(func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ForceUpdate++ })
			s.Task("b", 1, "n2", swarm.TaskStatePreparing, time.Minute)
		}, []string{}},
		{"start-first: the old one goes when the new one runs", 1, func(s *state) {
			s.Task("a", 1, "n1", running, time.Hour)
			s.Change(func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ForceUpdate++ })
			s.Task("b", 1, "n2", running, time.Minute)
		}, []string{"stop a"}},
	}
	for _, r := range rows {
		s := orchestratetest.New(r.replicas)
		r.given(s)
		p := Plan(s.Now, s, s.S, s.NewID)
		if got := orchestratetest.Words(p); !slices.Equal(got, r.want) {
			t.Errorf("%s: %v, want %v", r.name, got, r.want)
		}
		s.Do(p)
		if again := Plan(s.Now, s, s.S, s.NewID); len(again.Ops) != 0 {
			t.Errorf("%s: then %v", r.name, orchestratetest.Words(again))
		}
	}
}
