package global

import (
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/orchestrate/orchestratetest"
)

func TestPlan(t *testing.T) {
	type state = orchestratetest.State
	all := func(s *state) {
		for _, id := range []string{"n1", "n2", "n3"} {
			s.Task("on-"+id, 0, id, swarm.TaskStateRunning, time.Hour)
		}
	}
	rows := []struct {
		name  string
		given func(*state)
		want  []string
	}{
		{"from nothing", func(*state) {}, []string{"new n1", "new n2", "new n3"}},
		{"nothing to do", all, []string{}},
		{"only where it may start", func(s *state) {
			s.NodeMap["n1"].Spec.Availability = swarm.NodeAvailabilityPause
			s.NodeMap["n2"].Status.State = swarm.NodeStateDown
		}, []string{"new n3"}},
		{"constraints", func(s *state) {
			s.S.Spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.id != n2"}}
		}, []string{"new n1", "new n3"}},
		{"a dead node's task waits for it", func(s *state) {
			all(s)
			s.NodeMap["n1"].Status.State = swarm.NodeStateDown
		}, []string{}},
		{"a drained node", func(s *state) {
			all(s)
			s.NodeMap["n1"].Spec.Availability = swarm.NodeAvailabilityDrain
		}, []string{"stop on-n1"}},
		{"a paused node keeps it", func(s *state) {
			all(s)
			s.NodeMap["n1"].Spec.Availability = swarm.NodeAvailabilityPause
		}, []string{}},
		{"a removed node", func(s *state) {
			all(s)
			delete(s.NodeMap, "n1")
		}, []string{"remove on-n1"}},
		{"a node that no longer fits", func(s *state) {
			all(s)
			s.S.Spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.id != n2"}}
		}, []string{"stop on-n2"}},
	}
	for _, r := range rows {
		s := orchestratetest.New(0)
		s.S.Spec.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
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
