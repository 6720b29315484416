package store

import (
	"reflect"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// status merges a node's report. A report that says nothing new changes nothing.
func (t *txn) status(old api.Object, op api.Op) error {
	switch report := op.Object.(type) {
	case *api.Task:
		if old == nil {
			return nil
		}
		if next := t.taskStatus(old.(*api.Task), report); next != nil {
			return t.put(old, t.stamp(old, next))
		}
		return nil
	case *api.Node:
		if old == nil {
			return nil
		}
		if next := nodeStatus(old.(*api.Node), report, op.Part); next != nil {
			return t.put(old, t.stamp(old, next))
		}
		return nil
	}
	return api.Errorf(api.Invalid, "a %s has no status to report", op.Object.ObjectKind())
}

func (t *txn) taskStatus(old, report *api.Task) *api.Task {
	if api.Rank(report.Status.State) < api.Rank(old.Status.State) {
		return nil
	}
	next := *old
	next.Status = report.Status
	if next.StartedAt.IsZero() {
		next.StartedAt = report.StartedAt
	}
	if next.StartedAt.IsZero() && next.Status.State == swarm.TaskStateRunning {
		next.StartedAt = t.now
	}
	if next.StartedAt.Equal(old.StartedAt) && sameStatus(next.Status, old.Status) {
		return nil
	}
	return &next
}

// sameStatus compares times as instants: how a time zone is held in memory
// differs between a decoded entry and a restored snapshot.
func sameStatus(a, b swarm.TaskStatus) bool {
	same := a.Timestamp.Equal(b.Timestamp)
	a.Timestamp, b.Timestamp = time.Time{}, time.Time{}
	return same && reflect.DeepEqual(a, b)
}

// nodeStatus is the node with a part of the report, nil when that says nothing new.
func nodeStatus(old, report *api.Node, part api.Part) *api.Node {
	next := *old
	if part == api.PartAll || part == api.PartManager {
		next.ManagerStatus = report.ManagerStatus
	}
	if part == api.PartAll || part == api.PartReport {
		next.Status, next.DownSince, next.Description = report.Status, report.DownSince, report.Description
		next.DataPathAddr, next.RaftAddr = report.DataPathAddr, report.RaftAddr
		next.Capabilities, next.Tunnel, next.GossipStep = report.Capabilities, report.Tunnel, report.GossipStep
	}
	if part == api.PartState {
		next.Status.State, next.DownSince = report.Status.State, report.DownSince
		if next.Status.State != old.Status.State {
			next.Status.Message = report.Status.Message
		}
	}
	if sameNode(&next, old) {
		return nil
	}
	return &next
}

// sameNode compares what reports say of a node.
func sameNode(a, b *api.Node) bool {
	return a.Status == b.Status && a.GossipStep == b.GossipStep && a.DataPathAddr == b.DataPathAddr && a.RaftAddr == b.RaftAddr &&
		a.DownSince.Equal(b.DownSince) && reflect.DeepEqual(a.ManagerStatus, b.ManagerStatus) &&
		reflect.DeepEqual(a.Description, b.Description) && reflect.DeepEqual(a.Capabilities, b.Capabilities) &&
		reflect.DeepEqual(a.Tunnel, b.Tunnel)
}
