// Package restart keeps every slot that should have a live task supplied with
// one: it replaces tasks that ended as the restart policy says, replaces tasks
// that were given up at once, and lets a prepared task start when its delay is
// over and its predecessor has stopped. It is pure: no clock, no writes.
package restart

import (
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate"
)

// DefaultDelay is Docker's pause between the end of a task and the start of the
// task that replaces it.
const DefaultDelay = 5 * time.Second

// Plan decides for one service. New ids come from newID.
func Plan(now time.Time, v orchestrate.View, s *api.Service, newID func() string) orchestrate.Plan {
	var p orchestrate.Plan
	if s.Spec.Mode.Replicated == nil && s.Spec.Mode.Global == nil {
		return p
	}
	for _, slot := range orchestrate.Slots(s, v.TasksByService(s.ID)) {
		for _, t := range slot.Tasks {
			if t.Wanted() && !t.Alive() {
				p.Add(orchestrate.Desire(now, t, swarm.TaskStateShutdown))
			}
		}
		live := slot.Live()
		if len(live) == 0 {
			replace(&p, now, v, s, slot, newID)
		}
		for _, t := range live {
			raise(&p, now, v, slot, t)
		}
	}
	return p
}

// replace gives the slot a new task, if its policy wants one.
func replace(p *orchestrate.Plan, now time.Time, v orchestrate.View, s *api.Service, slot *orchestrate.Slot, newID func() string) {
	last := slot.Newest()
	if s.Spec.Mode.Global != nil && !orchestrate.Eligible(s, v.Node(slot.NodeID)) {
		return
	}
	delay := time.Duration(0)
	if ended(last) {
		if !Wanted(now, last, slot.Tasks) {
			return
		}
		delay = Delay(last.Spec.RestartPolicy)
		// It was prepared at once, and ended before its own delay was over: rejected.
		if last.StartAfter.After(now) && last.SpecVersion == s.SpecVersion {
			p.WakeAt(last.StartAfter)
			return
		}
	}
	t := orchestrate.Renew(now, v, newID(), s, last)
	if delay > 0 {
		t.DesiredState = swarm.TaskStateReady
		t.StartAfter = now.Add(delay)
		p.WakeAt(t.StartAfter)
	}
	p.Add(api.Create(t))
}

// ended says whether the task came to an end by itself, rather than because it
// was told to or because its node was lost.
func ended(t *api.Task) bool {
	switch t.Status.State {
	case swarm.TaskStateComplete, swarm.TaskStateFailed, swarm.TaskStateRejected:
		return true
	}
	return false
}

// Wanted says whether the restart policy of last, which ended by itself, lets
// its slot have another try. Attempts are counted from the slot's history.
func Wanted(now time.Time, last *api.Task, history []*api.Task) bool {
	policy := last.Spec.RestartPolicy
	if policy == nil {
		return true
	}
	switch policy.Condition {
	case swarm.RestartPolicyConditionNone:
		return false
	case swarm.RestartPolicyConditionOnFailure:
		if last.Status.State == swarm.TaskStateComplete {
			return false
		}
	}
	if policy.MaxAttempts == nil || *policy.MaxAttempts == 0 {
		return true
	}
	ends := uint64(0)
	for _, t := range history {
		if t.SpecVersion == last.SpecVersion && ended(t) && within(now, policy.Window, t) {
			ends++
		}
	}
	return ends <= *policy.MaxAttempts
}

func within(now time.Time, window *time.Duration, t *api.Task) bool {
	return window == nil || *window == 0 || now.Sub(t.Status.Timestamp) < *window
}

// Delay returns the policy's restart delay; the policy may be nil.
func Delay(policy *swarm.RestartPolicy) time.Duration {
	if policy == nil || policy.Delay == nil {
		return DefaultDelay
	}
	return *policy.Delay
}

// raise lets a task that is held at ready run.
func raise(p *orchestrate.Plan, now time.Time, v orchestrate.View, slot *orchestrate.Slot, t *api.Task) {
	if t.DesiredState == swarm.TaskStateRunning {
		return
	}
	if now.Before(t.StartAfter) {
		p.WakeAt(t.StartAfter)
		return
	}
	for _, other := range slot.Tasks {
		if !other.Wanted() && other.Alive() && !orchestrate.Down(v.Node(other.NodeID)) {
			return
		}
	}
	p.Add(orchestrate.Desire(now, t, swarm.TaskStateRunning))
}
