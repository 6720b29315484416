package manager

import (
	"context"
	"errors"
	"net/http"
	"time"

	"shoal/control/api"
	"shoal/control/raftnode"
	"shoal/control/rpc"
)

// Bounds of a proposal that must find the leader first: an election takes well
// under a second, and whoever asks should rather wait than be refused.
const (
	leaderPatience = 5 * time.Second
	forwardPause   = 20 * time.Millisecond
)

// The manager's own routes on the control port.
const (
	proposePath = "/propose"
	indexPath   = "/index"
	leavePath   = "/raft/leave"
)

type proposal struct{ Ops []api.Op }

type accepted struct{ Index uint64 }

// Propose commits the operations as one transaction and returns when this
// manager's own store holds them. A follower sends them to the leader; the
// refusal of another manager reads as if it were this one's.
func (m *Manager) Propose(ctx context.Context, ops []api.Op) error {
	patience := time.NewTimer(leaderPatience)
	defer patience.Stop()
	for {
		index, err := m.proposeOnce(ctx, ops)
		if err == nil {
			return m.raft.WaitApplied(ctx, index)
		}
		if !nobodyTook(err) {
			return err
		}
		select {
		case <-time.After(forwardPause):
		case <-patience.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
}

func (m *Manager) proposeOnce(ctx context.Context, ops []api.Op) (uint64, error) {
	index, err := m.raft.Propose(ctx, m.cfg.Now(), ops)
	var elsewhere *raftnode.NotLeaderError
	if !errors.As(err, &elsewhere) {
		return index, err
	}
	var reply accepted
	err = m.client.Call(ctx, elsewhere.Addr, http.MethodPost, proposePath, proposal{ops}, &reply)
	return reply.Index, err
}

// nobodyTook says whether the operations surely reached no leader, so that they
// may be proposed again: the leader changed, or is just gone.
func nobodyTook(err error) bool {
	var here *raftnode.NotLeaderError
	var there *rpc.NotLeaderError
	var unsent *rpc.NotSentError
	return errors.As(err, &here) || errors.As(err, &there) || errors.As(err, &unsent)
}

// servePropose takes a follower's operations.
func (m *Manager) servePropose(w http.ResponseWriter, r *http.Request) error {
	var in proposal
	if err := rpc.ReadJSON(r, &in); err != nil {
		return err
	}
	index, err := m.raft.Propose(r.Context(), m.cfg.Now(), in.Ops)
	if err != nil {
		return notLeader(err)
	}
	return rpc.WriteJSON(w, accepted{index})
}

// notLeader turns Raft's word for another leader into the one that travels.
func notLeader(err error) error {
	var here *raftnode.NotLeaderError
	if errors.As(err, &here) {
		return &rpc.NotLeaderError{Leader: here.Addr}
	}
	return err
}
