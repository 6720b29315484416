// Package orchestrate holds what every orchestrator shares: slots, what a new
// task looks like, when a task no longer agrees with its service, and when a
// node may not keep a task. The orchestrators proper are its sub-packages, each
// a pure function from (now, view) to operations and the time at which to be
// asked again. They decide about desired states; they never place a task,
// allocate an address, read a clock or write.
package orchestrate

import (
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/schedule/constraint"
)

// View is what orchestrators read. What it returns is shared: copy before change.
// A missing object is nil.
type View interface {
	Cluster() *api.Cluster
	Node(id string) *api.Node
	Nodes() []*api.Node
	Service(id string) *api.Service
	TasksByService(id string) []*api.Task
}

// Plan is what an orchestrator wants done.
type Plan struct {
	Ops []api.Op
	// Wake is when the planner wants to look again though nothing changed;
	// zero for never.
	Wake time.Time
}

// Add appends operations.
func (p *Plan) Add(ops ...api.Op) { p.Ops = append(p.Ops, ops...) }

// WakeAt asks to be called again at t, unless an earlier time is asked for.
func (p *Plan) WakeAt(t time.Time) { p.Wake = Earlier(p.Wake, t) }

// Earlier returns the earlier of two times, of which zero means never.
func Earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// Clone returns a copy of the task that may be given other states and another
// node; everything deeper stays shared and must not be changed.
func Clone(t *api.Task) *api.Task {
	c := *t
	return &c
}

// Desire makes the operation that gives the task another desired state. A task
// that no node has yet is given up at once: no node will ever report its end.
//
// The update is not tied to a version. Only the leader's loop changes desired
// states, and the store keeps whatever a node reported meanwhile.
func Desire(now time.Time, t *api.Task, state swarm.TaskState) api.Op {
	c := Clone(t)
	c.DesiredState = state
	unassigned := api.Rank(t.Status.State) < api.Rank(swarm.TaskStateAssigned)
	if unassigned && api.Rank(state) > api.Rank(swarm.TaskStateRunning) {
		c.Status.State = swarm.TaskStateShutdown
		c.Status.Timestamp = now
		c.Status.Message = "never started"
		c.Status.Err = ""
	}
	return api.UpdateAnyway(c)
}

// NewTask makes a task of the service for a slot (replicated) or a node (global).
func NewTask(now time.Time, id string, s *api.Service, slot int, nodeID string) *api.Task {
	t := &api.Task{SpecVersion: s.SpecVersion, ServiceName: s.Spec.Name, Ports: ports(s), ServiceLabels: policyLabels(s)}
	t.ID = id
	t.CreatedAt, t.UpdatedAt = now, now
	t.Labels = map[string]string{}
	t.Spec = s.Spec.TaskTemplate
	t.ServiceID = s.ID
	t.Slot = slot
	t.NodeID = nodeID
	t.DesiredState = swarm.TaskStateRunning
	t.Status = swarm.TaskStatus{Timestamp: now, State: swarm.TaskStateNew, Message: "created"}
	return t
}

// Renew makes the task that takes the place of old. While an update is paused a
// replaced task stays on the version it had: a pause exists to stop the spread
// of a version that fails.
func Renew(now time.Time, v View, id string, s *api.Service, old *api.Task) *api.Task {
	t := NewTask(now, id, s, old.Slot, "")
	if s.Spec.Mode.Global != nil {
		t.NodeID = old.NodeID
	}
	if Paused(s) && IsDirty(s, old, v.Node(old.NodeID)) {
		t.Spec, t.SpecVersion, t.Ports = old.Spec, old.SpecVersion, old.Ports
	}
	return t
}

// policyLabels are the labels of the service that speak to the node.
func policyLabels(s *api.Service) map[string]string {
	var out map[string]string
	for label, value := range s.Spec.Labels {
		if api.SpeaksOfPolicy(label) {
			if out == nil {
				out = map[string]string{}
			}
			out[label] = value
		}
	}
	return out
}

// ports are the service's ports with published ones filled in, or as wished
// while the allocator has not filled them in.
func ports(s *api.Service) []swarm.PortConfig {
	if len(s.Endpoint.Ports) > 0 {
		return s.Endpoint.Ports
	}
	if s.Spec.EndpointSpec != nil {
		return s.Spec.EndpointSpec.Ports
	}
	return nil
}

// Paused says whether an update or a rollback of the service stands still.
func Paused(s *api.Service) bool {
	return s.UpdateStatus != nil && (s.UpdateStatus.State == swarm.UpdateStatePaused ||
		s.UpdateStatus.State == swarm.UpdateStateRollbackPaused)
}

// Down says whether the node is gone or was found dead.
func Down(n *api.Node) bool { return n == nil || n.Status.State == swarm.NodeStateDown }

// Drained says whether the operator wants the node empty.
func Drained(n *api.Node) bool { return n.Spec.Availability == swarm.NodeAvailabilityDrain }

// Constraints returns the placement constraints of a task spec.
func Constraints(spec *swarm.TaskSpec) []string {
	if spec.Placement == nil {
		return nil
	}
	return spec.Placement.Constraints
}

// Eligible says whether a global service may start a task on the node.
func Eligible(s *api.Service, n *api.Node) bool {
	return n != nil && n.Status.State == swarm.NodeStateReady &&
		n.Spec.Availability == swarm.NodeAvailabilityActive &&
		constraint.Met(Constraints(&s.Spec.TaskTemplate), n)
}
