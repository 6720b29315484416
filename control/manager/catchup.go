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
		if index, err := m.committed(ctx); err == nil && m.raft.WaitApplied(ctx, index) == nil {
			close(m.caughtUp)
			return
		}
		select {
		case <-time.After(catchUpPause):
		case <-ctx.Done():
		}
	}
}

// committed is an index up to which everything is known to be committed, as the
// leader says now.
func (m *Manager) committed(ctx context.Context) (uint64, error) {
	if m.raft.IsLeader() {
		err := m.raft.Barrier(ctx)
		return m.store.View().Index(), err
	}
	addr := m.leader()
	if addr == "" {
		return 0, &rpc.NotLeaderError{}
	}
	var reply accepted
	err := m.client.Call(ctx, addr, http.MethodPost, indexPath, struct{}{}, &reply)
	return reply.Index, err
}

// serveIndex tells a manager that has just started how far the cluster has come.
func (m *Manager) serveIndex(w http.ResponseWriter, r *http.Request) error {
	if err := m.leading(); err != nil {
		return err
	}
	if err := m.raft.Barrier(r.Context()); err != nil {
		return notLeader(err)
	}
	return rpc.WriteJSON(w, accepted{m.store.View().Index()})
}
