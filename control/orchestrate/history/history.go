// Package history clears away tasks that are over: those to be removed once
// they have stopped, and of each slot's past all but the newest few. It also
// declares tasks of nodes that are gone, or were dead for a day, orphaned, which
// frees what they hold. It is pure: no clock, no writes.
package history

import (
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate"
)

const (
	// DefaultLimit is how many tasks a slot keeps, the live one included.
	DefaultLimit = 5
	// OrphanAfter is how long a node must be down before its tasks are
	// taken to be gone with it.
	OrphanAfter = 24 * time.Hour
)

// Plan decides for the service with that id, which may be deleted already: then
// all its tasks are to go.
func Plan(now time.Time, v orchestrate.View, serviceID string) orchestrate.Plan {
	var p orchestrate.Plan
	s := v.Service(serviceID)
	tasks := v.TasksByService(serviceID)
	var kept []*api.Task
	for _, t := range tasks {
		if s == nil || t.DesiredState == swarm.TaskStateRemove {
			remove(&p, now, v, t)
		} else {
			orphan(&p, now, v, t)
			kept = append(kept, t)
		}
	}
	if s == nil {
		return p
	}
	for _, slot := range orchestrate.Slots(s, kept) {
		trim(&p, v, slot, limit(v.Cluster(), s))
	}
	return p
}

// remove deletes a task that has stopped, was never started, or whose node
// cannot say so; another one is told to go.
func remove(p *orchestrate.Plan, now time.Time, v orchestrate.View, t *api.Task) {
	unassigned := api.Rank(t.Status.State) < api.Rank(swarm.TaskStateAssigned)
	switch {
	case !t.Alive() || unassigned || orchestrate.Down(v.Node(t.NodeID)):
		p.Add(api.Delete(t))
	case t.DesiredState != swarm.TaskStateRemove:
		p.Add(orchestrate.Desire(now, t, swarm.TaskStateRemove))
	}
}

// orphan ends a task of which no node will ever report the end.
func orphan(p *orchestrate.Plan, now time.Time, v orchestrate.View, t *api.Task) {
	if !t.Alive() || t.NodeID == "" {
		return
	}
	n := v.Node(t.NodeID)
	if n != nil {
		if n.Status.State != swarm.NodeStateDown || n.DownSince.IsZero() {
			return
		}
		if due := n.DownSince.Add(OrphanAfter); now.Before(due) {
			p.WakeAt(due)
			return
		}
	}
	c := orchestrate.Clone(t)
	c.Status.State = swarm.TaskStateOrphaned
	c.Status.Timestamp = now
	c.Status.Message = "the task's node is gone"
	p.Add(api.UpdateAnyway(c))
}

// limit is the number of tasks a slot keeps, -1 for all. A policy that counts
// attempts needs that many of them to count.
func limit(c *api.Cluster, s *api.Service) int {
	keep := DefaultLimit
	if c != nil && c.Spec.Orchestration.TaskHistoryRetentionLimit != nil {
		keep = int(*c.Spec.Orchestration.TaskHistoryRetentionLimit)
	}
	if keep < 0 {
		return -1
	}
	if policy := s.Spec.TaskTemplate.RestartPolicy; policy != nil && policy.MaxAttempts != nil && *policy.MaxAttempts > 0 {
		keep = max(keep, int(*policy.MaxAttempts)+1)
	}
	return keep
}

// trim deletes the slot's oldest ended tasks beyond keep. The newest task always
// stays: it is what says that the slot exists.
func trim(p *orchestrate.Plan, v orchestrate.View, slot *orchestrate.Slot, keep int) {
	if keep < 0 {
		return
	}
	for _, t := range slot.Tasks[min(len(slot.Tasks), max(keep, 1)):] {
		if !t.Wanted() && !t.Alive() {
			p.Add(api.Delete(t))
		}
	}
}
