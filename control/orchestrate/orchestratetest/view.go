// Package orchestratetest is a small state for the tests of orchestrators: it
// answers as the store does and carries plans out at once. It never decides.
package orchestratetest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate"
)

// Noon is when the tests begin.
var Noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// State is an orchestrate.View that tests write to.
type State struct {
	Now      time.Time
	C        *api.Cluster
	NodeMap  map[string]*api.Node
	S        *api.Service
	TaskMap  map[string]*api.Task
	ids      int
	versions uint64
}

// New returns a state at Noon with one replicated service "s", made of spec
// version 1, and nodes n1 to n3.
func New(replicas uint64) *State {
	st := &State{Now: Noon, C: &api.Cluster{}, NodeMap: map[string]*api.Node{}, TaskMap: map[string]*api.Task{}, S: &api.Service{}, versions: 1}
	st.S.ID, st.S.Spec.Name, st.S.Version.Index, st.S.SpecVersion.Index = "s", "s", 1, 1
	st.S.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	st.S.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "one"}
	for _, id := range []string{"n1", "n2", "n3"} {
		n := &api.Node{}
		n.ID, n.Status.State, n.Spec.Availability = id, swarm.NodeStateReady, swarm.NodeAvailabilityActive
		st.NodeMap[id] = n
	}
	return st
}

// Nodes returns a state of a cluster, which may be nil, and nodes, known by their
// host names.
func Nodes(c *api.Cluster, nodes ...*api.Node) *State {
	st := &State{Now: Noon, C: c, NodeMap: map[string]*api.Node{}}
	for _, n := range nodes {
		n.ID = n.Description.Hostname
		st.NodeMap[n.ID] = n
	}
	return st
}

// NewID returns task ids in order.
func (s *State) NewID() string { s.ids++; return fmt.Sprintf("new%03d", s.ids) }

// Cluster is for orchestrate.View.
func (s *State) Cluster() *api.Cluster { return s.C }

// Node is for orchestrate.View.
func (s *State) Node(id string) *api.Node { return s.NodeMap[id] }

// Nodes is for orchestrate.View.
func (s *State) Nodes() []*api.Node { return sorted(s.NodeMap) }

// Service is for orchestrate.View.
func (s *State) Service(id string) *api.Service {
	if s.S != nil && s.S.ID == id {
		return s.S
	}
	return nil
}

// TasksByService is for orchestrate.View.
func (s *State) TasksByService(string) []*api.Task { return sorted(s.TaskMap) }

func sorted[T api.Object](m map[string]T) []T {
	list := make([]T, 0, len(m))
	for _, o := range m {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(a.ObjectID(), b.ObjectID()) })
	return list
}

// Task adds a task of the service as it is now: in a slot, on a node, in a state
// and desired to run, made age ago. It started a second after it was made if it
// is running or has ended by itself.
func (s *State) Task(id string, slot int, node string, state swarm.TaskState, age time.Duration) *api.Task {
	t := orchestrate.NewTask(s.Now.Add(-age), id, s.S, slot, node)
	t.Status.State, t.Status.Timestamp = state, s.Now
	if api.Rank(state) >= api.Rank(swarm.TaskStateRunning) {
		t.StartedAt = t.CreatedAt.Add(time.Second)
	}
	s.TaskMap[id] = t
	return t
}

// Change gives the service another spec, as the API does.
func (s *State) Change(change func(*swarm.ServiceSpec)) {
	c := s.S.Copy()
	before := s.S.Copy().Spec
	change(&c.Spec)
	s.versions++
	c.PreviousSpec, c.PreviousSpecVersion = &before, s.S.SpecVersion
	c.SpecVersion.Index, c.UpdateStatus = s.versions, nil
	s.S = c
}

// Do carries a plan out.
func (s *State) Do(p orchestrate.Plan) {
	for _, op := range p.Ops {
		switch o := op.Object.(type) {
		case *api.Service:
			s.S = o
		case *api.Task:
			if op.Action == api.ActionDelete {
				delete(s.TaskMap, o.ID)
			} else {
				s.TaskMap[o.ID] = o
			}
		}
	}
}

// Words says what a plan does to tasks: "stop a", "remove a", "run a", "delete
// a", "orphan a", and for new tasks "new 1" or "new 1 later" with their slot or
// node.
func Words(p orchestrate.Plan) []string {
	words := []string{}
	for _, op := range p.Ops {
		t, ok := op.Object.(*api.Task)
		if !ok {
			continue
		}
		words = append(words, word(op.Action, t))
	}
	slices.Sort(words)
	return words
}

func word(action api.Action, t *api.Task) string {
	slot := fmt.Sprint(t.Slot)
	if t.Slot == 0 {
		slot = t.NodeID
	}
	switch {
	case action == api.ActionDelete:
		return "delete " + t.ID
	case action == api.ActionCreate && t.DesiredState == swarm.TaskStateReady:
		return "new " + slot + " later"
	case action == api.ActionCreate:
		return "new " + slot
	case t.Status.State == swarm.TaskStateOrphaned:
		return "orphan " + t.ID
	case t.DesiredState == swarm.TaskStateRemove:
		return "remove " + t.ID
	case t.DesiredState == swarm.TaskStateShutdown:
		return "stop " + t.ID
	}
	return "run " + t.ID
}
