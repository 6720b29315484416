package schedule

import (
	"cmp"
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// group is a set of waiting tasks that ask for the same.
type group struct {
	version version
	nodeID  string
	tasks   []*api.Task
	// same is the spec all tasks of the group have.
	request
	preferences []string
}

// groups sorts the waiting tasks into groups: by version, by the node that a
// global service chose, and in an order that depends on the state alone.
func (s *Scheduler) groups() []*group {
	waiting := make([]*api.Task, 0, len(s.waiting))
	for _, t := range s.waiting {
		waiting = append(waiting, t)
	}
	slices.SortFunc(waiting, func(a, b *api.Task) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.ID, b.ID))
	})
	type key struct {
		version
		nodeID, taskID string
	}
	index := map[key]*group{}
	var groups []*group
	for _, t := range waiting {
		k := key{version: version{t.ServiceID, t.SpecVersion}, nodeID: t.NodeID}
		if t.Standalone() { // no two of them ask for the same
			k.taskID = t.ID
		}
		g := index[k]
		if g == nil {
			g = &group{version: k.version, nodeID: t.NodeID, request: newRequest(t), preferences: preferences(&t.Spec)}
			index[k] = g
			groups = append(groups, g)
		}
		g.tasks = append(g.tasks, t)
	}
	return groups
}

func preferences(spec *swarm.TaskSpec) []string {
	if spec.Placement == nil {
		return nil
	}
	var keys []string
	for _, p := range spec.Placement.Preferences {
		if p.Spread != nil {
			keys = append(keys, p.Spread.SpreadDescriptor)
		}
	}
	return keys
}

// place returns the group's tasks that change: assigned, or told why not.
func (g *group) place(now time.Time, s *Scheduler) []*api.Task {
	refused := make(refusals, len(filters))
	root := &branch{}
	for _, n := range g.candidates(s) {
		if g.admit(n, refused) {
			root.insert(now, g, n, g.preferences)
		}
	}
	var changed []*api.Task
	reason := ""
	for i, t := range g.tasks {
		n := root.best()
		if n == nil {
			reason = refused.explain()
			changed = append(changed, refuseAll(now, g.tasks[i:], reason)...)
			break
		}
		c := assign(now, t, n)
		changed = append(changed, c)
		// The load counts at once, so that the next of the group sees it.
		s.SetTask(c)
		root.settle(now, g, n, refused)
	}
	return changed
}

func refuseAll(now time.Time, tasks []*api.Task, reason string) []*api.Task {
	var changed []*api.Task
	for _, t := range tasks {
		if c := refuse(now, t, reason); c != nil {
			changed = append(changed, c)
		}
	}
	return changed
}

// candidates are all nodes, or the one that a global service chose.
func (g *group) candidates(s *Scheduler) []*node {
	if g.nodeID == "" {
		return s.sorted()
	}
	if n := s.nodes[g.nodeID]; n != nil && n.Node != nil {
		return []*node{n}
	}
	return nil
}
