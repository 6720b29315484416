package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"shoal/control/api"
	"shoal/control/fsm"
)

// NotLeaderError says that only the leader can do what was asked for, and who
// that is.
type NotLeaderError struct {
	// ID and Addr are the leader's.
	ID, Addr string
}

func (e *NotLeaderError) Error() string {
	return fmt.Sprintf("not the leader, that is %s at %s", e.ID, e.Addr)
}

// enqueueWait bounds how long a proposal waits to get into the queue of the log.
const enqueueWait = 2 * time.Second

// Propose appends the operations to the log and waits until they are committed
// and the store of this member, the leader, holds them; index is theirs. now is
// the time they are stamped with.
//
// Errors: what the store refused them with, as it is; *NotLeaderError on another
// member; kind Unavailable when there is no leader or the majority is lost, within
// NoLeaderWait and half a second. A leader that loses the majority between append
// and commit cannot know the outcome; the message then says so.
func (n *Node) Propose(ctx context.Context, now time.Time, ops []api.Op) (index uint64, err error) {
	if err := n.leading(ctx); err != nil {
		return 0, err
	}
	entry, err := fsm.Encode(fsm.Command{Now: now, Ops: ops})
	if err != nil {
		return 0, err
	}
	future := n.raft.Apply(entry, timeout(ctx, enqueueWait))
	if err := n.await(ctx, future); err != nil {
		return 0, err
	}
	if refused, ok := future.Response().(error); ok {
		return 0, refused
	}
	return future.Index(), nil
}

// Barrier returns once this member, the leader, has applied all that was
// committed before. Errors are those of Propose.
func (n *Node) Barrier(ctx context.Context) error {
	if err := n.leading(ctx); err != nil {
		return err
	}
	return n.await(ctx, n.raft.Barrier(timeout(ctx, enqueueWait)))
}

// TransferLeadership hands leadership to the member whose log is most complete,
// and returns when that has taken it.
func (n *Node) TransferLeadership(ctx context.Context) error {
	if err := n.leading(ctx); err != nil {
		return err
	}
	if len(n.servers()) == 1 {
		return api.Errorf(api.Invalid, "manager %s is the only one, nobody can take its leadership", n.cfg.Name(n.cfg.ID))
	}
	return n.await(ctx, n.raft.LeadershipTransfer())
}

// leading returns nil on the leader, else who the leader is. Without one it
// waits a while for an election to end.
func (n *Node) leading(ctx context.Context) error {
	patience := time.NewTimer(n.cfg.NoLeaderWait)
	defer patience.Stop()
	for {
		changed := n.peers.changed()
		if n.IsLeader() {
			return nil
		}
		if id, addr := n.Leader(); id != "" && id != n.cfg.ID {
			return &NotLeaderError{ID: id, Addr: addr}
		}
		select {
		case <-changed:
		case <-patience.C:
			return n.noLeader(ctx)
		case <-ctx.Done():
			return n.noLeader(ctx)
		}
	}
}

// await waits for a future of raft and puts its error into the words of this
// package. A leader's futures end: with a commit, or when its lease does.
func (n *Node) await(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return n.explain(ctx, err)
	case <-ctx.Done():
		return api.Errorf(api.Unavailable, "waiting for the managers to commit: %w; %s", ctx.Err(), unknownOutcome)
	}
}

const unknownOutcome = "whether the change is made will show when they answer again"

func (n *Node) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		if err := n.leading(ctx); err != nil {
			return err
		}
		return api.Errorf(api.Unavailable, "the leader has just changed, try again")
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrAbortedByRestore):
		return n.lost(ctx)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return api.Errorf(api.Unavailable, "the leader's queue is full, try again")
	case errors.Is(err, raft.ErrRaftShutdown):
		return api.Errorf(api.Unavailable, "manager %s is shutting down", n.cfg.Name(n.cfg.ID))
	}
	return api.Errorf(api.Internal, "raft: %w", err)
}

// lost is the error of a change that was in the log but not known to be
// committed when leadership was lost.
func (n *Node) lost(ctx context.Context) error {
	reason := "the leader has lost its leadership"
	var notLeader *NotLeaderError
	if err := n.leading(ctx); err != nil && !errors.As(err, &notLeader) {
		reason = err.Error()
	}
	return api.Errorf(api.Unavailable, "%s; %s", reason, unknownOutcome)
}
