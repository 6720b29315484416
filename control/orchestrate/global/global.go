// Package global keeps one task of a global service on every eligible node. A
// node that is only down keeps its task, which goes on when the node comes back;
// a node that is drained, removed or no longer meets the constraints gives it up.
// It is pure: no clock, no writes, no placement.
package global

import (
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate"
	"shoal/control/schedule/constraint"
)

// Plan decides for one global service; other modes give an empty plan. New ids
// come from newID.
func Plan(now time.Time, v orchestrate.View, s *api.Service, newID func() string) orchestrate.Plan {
	var p orchestrate.Plan
	if s.Spec.Mode.Global == nil {
		return p
	}
	have := map[string]bool{}
	for _, slot := range orchestrate.Slots(s, v.TasksByService(s.ID)) {
		have[slot.NodeID] = true
		p.Add(slot.Settle(now, v, s)...)
		p.Add(leave(now, s, v.Node(slot.NodeID), slot)...)
	}
	for _, n := range v.Nodes() {
		if !have[n.ID] && orchestrate.Eligible(s, n) {
			p.Add(api.Create(orchestrate.NewTask(now, newID(), s, 0, n.ID)))
		}
	}
	return p
}

// leave gives up what a node that is gone or not wanted any more has.
func leave(now time.Time, s *api.Service, n *api.Node, slot *orchestrate.Slot) []api.Op {
	var ops []api.Op
	if n == nil {
		for _, t := range slot.Tasks {
			ops = append(ops, orchestrate.Desire(now, t, swarm.TaskStateRemove))
		}
		return ops
	}
	if !orchestrate.Drained(n) && constraint.Met(orchestrate.Constraints(&s.Spec.TaskTemplate), n) {
		return nil
	}
	for _, t := range slot.Live() {
		ops = append(ops, orchestrate.Desire(now, t, swarm.TaskStateShutdown))
	}
	return ops
}
