package update

import (
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate"
	"shoal/control/orchestrate/restart"
)

// pick starts the update of as many dirty slots as the parallelism leaves room for.
func (r *round) pick(newID func() string) {
	for _, slot := range r.dirty {
		if r.config.Parallelism != 0 && r.inFlight >= int(r.config.Parallelism) {
			return
		}
		if due := r.retryAt(slot); r.now.Before(due) {
			r.plan.WakeAt(due)
			continue
		}
		r.updateSlot(slot, newID)
		r.inFlight++
	}
}

// retryAt is when a slot may be tried again in which this update has failed
// before: not before the restart delay is over. Zero means at once.
func (r *round) retryAt(slot *orchestrate.Slot) (due time.Time) {
	for _, t := range r.failures(slot) {
		if at := t.Status.Timestamp.Add(restart.Delay(t.Spec.RestartPolicy)); at.After(due) {
			due = at
		}
	}
	return due
}

// updateSlot replaces what the slot has by a new task. With stop-first the new
// task prepares while the old one stops and runs when that is over; with
// start-first the old one, if it runs, stays until the new one runs.
func (r *round) updateSlot(slot *orchestrate.Slot, newID func() string) {
	stay := slot.Running()
	if r.config.Order != swarm.UpdateOrderStartFirst {
		stay = nil
	}
	stopping := false
	for _, t := range slot.Tasks {
		if t.Wanted() && t != stay {
			r.plan.Add(orchestrate.Desire(r.now, t, swarm.TaskStateShutdown))
		}
		stopping = stopping || (t != stay && t.Alive() && t.NodeID != "" && !orchestrate.Down(r.view.Node(t.NodeID)))
	}
	t := orchestrate.NewTask(r.now, newID(), r.s, slot.Number, slot.NodeID)
	if stopping {
		t.DesiredState = swarm.TaskStateReady
	}
	r.plan.Add(api.Create(t))
}
