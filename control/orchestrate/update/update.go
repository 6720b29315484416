// Package update rolls a changed spec out over the slots of a service, a few at
// a time, watches the tasks it made, and pauses, goes on or rolls back when too
// many of them fail. All it knows it reads from the service and its tasks, so a
// new leader goes on where the old one stopped. It is pure: no clock, no writes,
// no placement.
package update

import (
	"fmt"
	"sort"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate"
)

// DefaultMonitor is how long Docker watches a new task for failure.
const DefaultMonitor = 5 * time.Second

// IsDirty says whether the task must be replaced to agree with its service's
// spec; n is the task's node and may be nil. See orchestrate.IsDirty.
func IsDirty(s *api.Service, t *api.Task, n *api.Node) bool { return orchestrate.IsDirty(s, t, n) }

// Plan decides for one service. New ids come from newID. When a plan changes
// the service's spec (a rollback), nothing else of the service may be planned
// before that is committed.
func Plan(now time.Time, v orchestrate.View, s *api.Service, newID func() string) orchestrate.Plan {
	if (s.Spec.Mode.Replicated == nil && s.Spec.Mode.Global == nil) || orchestrate.Paused(s) {
		return orchestrate.Plan{}
	}
	r := newRound(now, v, s)
	r.survey()
	if !r.active() {
		if len(r.dirty) == 0 {
			return r.plan
		}
		r.begin()
	}
	if r.tooManyFailed() && r.fail() {
		return r.plan
	}
	r.pick(newID)
	if len(r.dirty) == 0 && r.inFlight == 0 {
		r.complete()
	}
	return r.plan
}

// round is one look at a service.
type round struct {
	now    time.Time
	view   orchestrate.View
	s      *api.Service
	config swarm.UpdateConfig
	slots  []*orchestrate.Slot
	plan   orchestrate.Plan

	// dirty are the slots still to be updated, those that do not run first.
	dirty []*orchestrate.Slot
	// inFlight counts slots whose new task does not run yet or whose delay
	// is not over.
	inFlight int
	// failed are this update's failed tasks, the earliest first.
	failed []*api.Task
	// monitored is when the last new task has been watched long enough.
	monitored time.Time
}

func newRound(now time.Time, v orchestrate.View, s *api.Service) *round {
	r := &round{now: now, view: v, s: s, slots: orchestrate.Slots(s, v.TasksByService(s.ID))}
	r.config = Config(s)
	return r
}

// Config returns the settings that govern the service's current update or
// rollback, with Docker's defaults filled in.
func Config(s *api.Service) swarm.UpdateConfig {
	c := swarm.UpdateConfig{Parallelism: 1}
	set := s.Spec.UpdateConfig
	if s.UpdateStatus != nil && s.UpdateStatus.State == swarm.UpdateStateRollbackStarted {
		set = s.Spec.RollbackConfig
	}
	if set != nil {
		c = *set
	}
	if c.Monitor == 0 {
		c.Monitor = DefaultMonitor
	}
	if c.FailureAction == "" {
		c.FailureAction = swarm.UpdateFailureActionPause
	}
	if c.Order == "" {
		c.Order = swarm.UpdateOrderStopFirst
	}
	return c
}

// active says whether an update or rollback is under way.
func (r *round) active() bool {
	st := r.s.UpdateStatus
	return st != nil && (st.State == swarm.UpdateStateUpdating || st.State == swarm.UpdateStateRollbackStarted)
}

// survey sorts the slots into updated, being updated and dirty ones.
func (r *round) survey() {
	for _, slot := range r.slots {
		failed := r.failures(slot)
		r.failed = append(r.failed, failed...)
		clean := r.clean(slot)
		switch {
		case clean == nil:
			if r.stale(slot) {
				r.dirty = append(r.dirty, slot)
			}
		case !r.ours(clean):
		case len(failed) > 0 && r.config.FailureAction == swarm.UpdateFailureActionContinue:
			// A failed slot is the restart policy's business now.
		default:
			r.follow(clean)
		}
	}
	sort.Slice(r.failed, func(i, j int) bool {
		a, b := r.failed[i], r.failed[j]
		if !a.Status.Timestamp.Equal(b.Status.Timestamp) {
			return a.Status.Timestamp.Before(b.Status.Timestamp)
		}
		return a.ID < b.ID
	})
	sort.SliceStable(r.dirty, func(i, j int) bool {
		return r.dirty[i].Running() == nil && r.dirty[j].Running() != nil
	})
}

// clean returns the slot's task that agrees with the spec and is meant to run.
func (r *round) clean(slot *orchestrate.Slot) *api.Task {
	for _, t := range slot.Live() {
		if !r.isDirty(t) {
			return t
		}
	}
	return nil
}

// stale says whether a slot without a clean live task needs one from here: it
// has a live dirty one, or its last try was of another version. Any other slot
// without a task is left to the restart policy. A node that a global service
// may not use now is left alone.
func (r *round) stale(slot *orchestrate.Slot) bool {
	if r.s.Spec.Mode.Global != nil && !orchestrate.Eligible(r.s, r.view.Node(slot.NodeID)) {
		return false
	}
	return len(slot.Live()) > 0 || r.isDirty(slot.Newest())
}

func (r *round) isDirty(t *api.Task) bool {
	return orchestrate.IsDirty(r.s, t, r.view.Node(t.NodeID))
}

// ours says whether the task was made since this update began. A rollback
// begins with a version of its own; an update may begin anew for a version that
// has tasks, as when a node comes back. (When a rollback began is told by the
// clock of whoever took the request, so it is not compared with.)
func (r *round) ours(t *api.Task) bool {
	if !r.active() || t.SpecVersion != r.s.SpecVersion {
		return false
	}
	st := r.s.UpdateStatus
	return st.State == swarm.UpdateStateRollbackStarted || st.StartedAt == nil || !t.CreatedAt.Before(*st.StartedAt)
}

// follow accounts for a new task: it takes a place until it runs and the delay
// is over, and it is watched until the monitor's time is over.
func (r *round) follow(t *api.Task) {
	if t.Status.State != swarm.TaskStateRunning {
		r.inFlight++
		return
	}
	if next := t.StartedAt.Add(r.config.Delay); r.now.Before(next) {
		r.inFlight++
		r.plan.WakeAt(next)
	}
	if end := t.StartedAt.Add(r.config.Monitor); end.After(r.monitored) {
		r.monitored = end
	}
}

// failures returns the slot's tasks of this update that ended by themselves too
// early.
func (r *round) failures(slot *orchestrate.Slot) []*api.Task {
	var failed []*api.Task
	for _, t := range slot.Tasks {
		switch t.Status.State {
		case swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateComplete:
			early := t.StartedAt.IsZero() || t.Status.Timestamp.Sub(t.StartedAt) <= r.config.Monitor
			if early && r.ours(t) {
				failed = append(failed, t)
			}
		}
	}
	return failed
}

func (r *round) tooManyFailed() bool {
	return len(r.failed) > 0 && float32(len(r.failed))/float32(len(r.slots)) > r.config.MaxFailureRatio
}

// fail does what the failure action says and reports whether the update stops.
func (r *round) fail() bool {
	rolling := r.s.UpdateStatus.State == swarm.UpdateStateRollbackStarted
	reason := fmt.Sprintf("due to failure or early termination of task %s", r.failed[0].ID)
	switch {
	case r.config.FailureAction == swarm.UpdateFailureActionContinue:
		return false
	case r.config.FailureAction == swarm.UpdateFailureActionRollback && !rolling && r.s.PreviousSpec != nil:
		r.rollBack("update rolled back " + reason)
	case rolling:
		r.status(swarm.UpdateStateRollbackPaused, "rollback paused "+reason)
	case r.config.FailureAction == swarm.UpdateFailureActionRollback:
		r.status(swarm.UpdateStatePaused, "update paused "+reason+"; there is no previous spec to roll back to")
	default:
		r.status(swarm.UpdateStatePaused, "update paused "+reason)
	}
	return true
}

// rollBack makes the previous spec the wished one. It leaves no previous spec:
// a rollback is never rolled back.
func (r *round) rollBack(message string) {
	c := *r.s
	c.Spec, c.PreviousSpec = *c.PreviousSpec, nil
	c.SpecVersion, c.PreviousSpecVersion = c.PreviousSpecVersion, swarm.Version{}
	started := r.now
	c.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateStateRollbackStarted, StartedAt: &started, Message: message}
	r.plan = orchestrate.Plan{Ops: []api.Op{api.Update(&c)}}
}

// status replaces the service's update status, keeping when it began.
func (r *round) status(state swarm.UpdateState, message string) {
	c := *r.s
	st := *c.UpdateStatus
	st.State, st.Message = state, message
	c.UpdateStatus = &st
	r.replace(&c)
}

// replace makes c the service, in the plan and for what is decided after.
func (r *round) replace(c *api.Service) {
	r.s = c
	r.plan.Add(api.Update(c))
}

func (r *round) begin() {
	c := *r.s
	started := r.now
	c.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateStateUpdating, StartedAt: &started, Message: "update in progress"}
	r.replace(&c)
}

// complete ends the update once its last new task has been watched long enough.
func (r *round) complete() {
	if r.now.Before(r.monitored) {
		r.plan.WakeAt(r.monitored)
		return
	}
	c := *r.s
	st := *c.UpdateStatus
	done := r.now
	st.CompletedAt = &done
	if st.State == swarm.UpdateStateRollbackStarted {
		st.State, st.Message = swarm.UpdateStateRollbackCompleted, "rollback completed"
	} else {
		st.State, st.Message = swarm.UpdateStateCompleted, "update completed"
	}
	c.UpdateStatus = &st
	r.replace(&c)
}
