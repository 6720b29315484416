// Package schedule gives tasks to nodes. Filters say which nodes may take a task
// and, for a task that no node may take, why; among those left it spreads: away
// from nodes where the service fails, then to where the service has the fewest
// tasks, then to where there are the fewest at all.
//
// A Scheduler follows the state through Load and Observe, so that a round costs
// what changed. It decides by what it was told alone: no clock, no writes.
package schedule

import (
	"sort"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/schedule/constraint"
)

// View is what Load reads.
type View interface {
	Nodes() []*api.Node
	Tasks() []*api.Task
}

// Scheduler knows every node's load and the tasks that wait for a node. It is
// not safe for concurrent use.
type Scheduler struct {
	nodes   map[string]*node
	tasks   map[string]*api.Task
	waiting map[string]*api.Task
	// order lists the nodes by id; nil when it must be made anew.
	order []*node
}

// New returns a scheduler that knows nothing.
func New() *Scheduler {
	return &Scheduler{nodes: map[string]*node{}, tasks: map[string]*api.Task{}, waiting: map[string]*api.Task{}}
}

// Load returns a scheduler that knows the whole view.
func Load(v View) *Scheduler {
	s := New()
	for _, n := range v.Nodes() {
		s.SetNode(n)
	}
	for _, t := range v.Tasks() {
		s.SetTask(t)
	}
	return s
}

// ParseConstraints reads placement constraints; its errors have Docker's words.
func ParseConstraints(expressions []string) ([]constraint.Constraint, error) {
	return constraint.Parse(expressions)
}

// SetNode tells of a new or changed node.
func (s *Scheduler) SetNode(n *api.Node) {
	known := s.node(n.ID)
	if known.Node == nil {
		s.order = nil
	}
	known.Node = n
}

// DropNode tells that a node is gone.
func (s *Scheduler) DropNode(id string) {
	if n := s.nodes[id]; n != nil {
		n.Node = nil
		s.forget(id, n)
		s.order = nil
	}
}

// SetTask tells of a new or changed task.
func (s *Scheduler) SetTask(t *api.Task) {
	s.DropTask(t.ID)
	s.tasks[t.ID] = t
	switch {
	case placed(t):
		s.node(t.NodeID).add(t)
	case t.Status.State == swarm.TaskStatePending && t.Wanted():
		s.waiting[t.ID] = t
	}
}

// DropTask tells that a task is gone.
func (s *Scheduler) DropTask(id string) {
	old := s.tasks[id]
	if old == nil {
		return
	}
	delete(s.tasks, id)
	delete(s.waiting, id)
	if placed(old) {
		n := s.node(old.NodeID)
		n.remove(old)
		s.forget(old.NodeID, n)
	}
}

// placed says whether the task was given to a node, also when it has ended.
func placed(t *api.Task) bool {
	return t.NodeID != "" && api.Rank(t.Status.State) >= api.Rank(swarm.TaskStateAssigned)
}

func (s *Scheduler) node(id string) *node {
	n := s.nodes[id]
	if n == nil {
		n = newNode()
		s.nodes[id] = n
	}
	return n
}

// forget drops a node that is gone and has no task left.
func (s *Scheduler) forget(id string, n *node) {
	if n.Node == nil && n.known == 0 {
		delete(s.nodes, id)
	}
}

// sorted returns the nodes that exist, by id.
func (s *Scheduler) sorted() []*node {
	if s.order == nil {
		s.order = make([]*node, 0, len(s.nodes))
		for _, n := range s.nodes {
			if n.Node != nil {
				s.order = append(s.order, n)
			}
		}
		sort.Slice(s.order, func(i, j int) bool { return s.order[i].ID < s.order[j].ID })
	}
	return s.order
}

// Plan gives every waiting task that fits somewhere to a node, and tells in the
// status of every other one why it fits nowhere. It takes its own decisions for
// granted: when they are not committed the scheduler must be loaded anew.
func (s *Scheduler) Plan(now time.Time) []api.Op {
	var ops []api.Op
	for _, g := range s.groups() {
		for _, t := range g.place(now, s) {
			s.SetTask(t)
			ops = append(ops, api.UpdateAnyway(t))
		}
	}
	return ops
}

// assign returns the task as it is once the node has been given it.
func assign(now time.Time, t *api.Task, n *node) *api.Task {
	c := *t
	c.NodeID, c.Ports = n.ID, n.openPorts(t.Ports)
	c.Status.State = swarm.TaskStateAssigned
	c.Status.Timestamp = now
	c.Status.Message = "scheduler assigned task to node"
	c.Status.Err = ""
	return &c
}

// refuse returns the task with the reason in its status, nil when it is there.
func refuse(now time.Time, t *api.Task, reason string) *api.Task {
	if t.Status.Err == reason {
		return nil
	}
	c := *t
	c.Status.Timestamp = now
	c.Status.Message = "pending task scheduling"
	c.Status.Err = reason
	return &c
}
