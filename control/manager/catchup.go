package manager

import (
	"context"
	"net/http"
	"time"

	"shoal/control/api"
	"shoal/control/rpc"
)

// catchUpPause is how long a manager waits between two tries to learn how far
// the cluster has come.
const catchUpPause = 50 * time.Millisecond

// CaughtUp waits until this manager's store holds everything that was committed
// before the manager started: until then it knows less than it once
// acknowledged. It fails with api.Unavailable when ctx ends first.
func (m *Manager) CaughtUp(ctx context.Context) error {
	select {
	case <-m.caughtUp:
		return nil
	case <-ctx.Done():
		return api.Errorf(api.Unavailable, "this manager has just started and does not know the cluster's state yet: no other manager could tell it how far that has come")
	}
}

// catchUp asks the leader how far the cluster has come, and waits for that.
func (m *Manager) catchUp(ctx context.Context) {
	for ctx.Err() == nil {
		if index, err := m.committed(ctx, position{Sure: true}); err == nil && m.raft.WaitApplied(ctx, index) == nil {
			close(m.caughtUp)
			return
		}
		select {
		case <-time.After(catchUpPause):
		case <-ctx.Done():
		}
	}
}

// Fresh returns when this manager's store holds what any manager had
// acknowledged before the call, or at once when no leader can say how far that
// is: a write will then be refused with better words.
func (m *Manager) Fresh(ctx context.Context) {
	if index, err := m.committed(ctx, position{}); err == nil {
		_ = m.raft.WaitApplied(ctx, index) // ctx ended: the request ends with it
	}
}

// position asks how far the cluster has come. Sure asks the leader to make sure
// first that it still leads, which costs a log entry.
type position struct{ Sure bool }

// committed is an index up to which everything is known to be committed, as the
// leader says now.
func (m *Manager) committed(ctx context.Context, ask position) (uint64, error) {
	if m.raft.IsLeader() {
		return m.position(ctx, ask)
	}
	addr := m.leader()
	if addr == "" {
		return 0, &rpc.NotLeaderError{}
	}
	var reply accepted
	err := m.client.Call(ctx, addr, http.MethodPost, indexPath, ask, &reply)
	return reply.Index, err
}

// position is the leader's answer. A new leader first applies what the old one
// had committed.
func (m *Manager) position(ctx context.Context, ask position) (uint64, error) {
	if ask.Sure || !m.upToDate.Load() {
		if err := m.raft.Barrier(ctx); err != nil {
			return 0, notLeader(err)
		}
	}
	return m.store.View().Index(), nil
}

// serveIndex tells another manager how far the cluster has come.
func (m *Manager) serveIndex(w http.ResponseWriter, r *http.Request) error {
	if err := m.leading(); err != nil {
		return err
	}
	var ask position
	if err := rpc.ReadJSON(r, &ask); err != nil {
		return err
	}
	index, err := m.position(r.Context(), ask)
	if err != nil {
		return err
	}
	return rpc.WriteJSON(w, accepted{index})
}
