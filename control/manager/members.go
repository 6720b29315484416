package manager

import (
	"context"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/join"
	"shoal/control/raftnode"
	"shoal/control/rpc"
)

// memberPeriod is how often the leader compares what the store says of the
// managers with what Raft knows. It costs a look at three or five entries.
const memberPeriod = 500 * time.Millisecond

// watchManagers keeps every manager's ManagerStatus true.
func (m *Manager) watchManagers(ctx context.Context) error {
	tick := time.NewTicker(memberPeriod)
	defer tick.Stop()
	for {
		if ops := managerStatus(m.store.View().Nodes(), m.raft.Members()); len(ops) > 0 {
			// Refused or lost, it is tried again with the next look.
			if err := m.proposeHere(ctx, ops); err != nil {
				m.cfg.Logger.Warn("the managers' status was not recorded", "error", err)
			}
		}
		m.dismiss(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// dismiss takes managers that were demoted or removed out of the Raft group. A
// leader that is to go hands over first: the next one dismisses it.
func (m *Manager) dismiss(ctx context.Context) {
	view := m.store.View()
	if view.Cluster() == nil {
		return // nothing is founded yet, so nobody can have been demoted
	}
	for _, id := range dismissed(view.Nodes(), m.raft.Members()) {
		var err error
		if id == m.cfg.NodeID {
			err = m.raft.TransferLeadership(ctx)
		} else {
			err = m.raft.RemoveServer(ctx, id)
		}
		if err != nil && ctx.Err() == nil {
			m.cfg.Logger.Warn("a manager that is to go is still one", "node", m.hostname(id), "error", err)
		}
	}
}

// dismissed lists the members of the Raft group that are not to be managers.
func dismissed(nodes []*api.Node, members []raftnode.Member) (ids []string) {
	managers := map[string]bool{}
	for _, n := range nodes {
		managers[n.ID] = n.Spec.Role == swarm.NodeRoleManager
	}
	for _, member := range members {
		if !managers[member.ID] {
			ids = append(ids, member.ID)
		}
	}
	return ids
}

// managerStatus returns what must change for the nodes to say what Raft knows.
func managerStatus(nodes []*api.Node, members []raftnode.Member) (ops []api.Op) {
	known := map[string]raftnode.Member{}
	for _, member := range members {
		known[member.ID] = member
	}
	for _, n := range nodes {
		var want *swarm.ManagerStatus
		if member, ok := known[n.ID]; ok {
			want = &swarm.ManagerStatus{Leader: member.Leader, Addr: member.Addr, Reachability: swarm.ReachabilityUnreachable}
			if member.Reachable {
				want.Reachability = swarm.ReachabilityReachable
			}
		}
		if same(n.ManagerStatus, want) {
			continue
		}
		n := n.Copy()
		n.ManagerStatus = want
		ops = append(ops, api.NodeStatus(api.PartManager, n))
	}
	return ops
}

func same(a, b *swarm.ManagerStatus) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// serveRaftLeave removes the manager that asks from the Raft group.
func (m *Manager) serveRaftLeave(w http.ResponseWriter, r *http.Request) error {
	peer, _ := rpc.PeerFrom(r.Context())
	if err := m.raft.RemoveServer(r.Context(), peer.NodeID); err != nil {
		return notLeader(err)
	}
	return rpc.WriteJSON(w, struct{}{})
}

// JoinRaft asks the leader, to be found through the managers given, to add this
// manager, and returns when its own store knows the cluster.
func (m *Manager) JoinRaft(ctx context.Context, managers []string) error {
	if err := join.BecomeVoter(ctx, m.client, managers, m.cfg.Advertise); err != nil {
		return err
	}
	for m.store.View().Cluster() == nil {
		changed := m.store.Changed(api.KindCluster)
		if m.store.View().Cluster() != nil {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// LeaveRaft takes this manager out of the Raft group.
func (m *Manager) LeaveRaft(ctx context.Context) error {
	if m.raft.IsLeader() {
		return m.raft.RemoveServer(ctx, m.cfg.NodeID)
	}
	return m.client.Call(ctx, m.leader(), http.MethodPost, leavePath, struct{}{}, nil)
}

// admit refuses certificates of nodes that are no longer what they say.
func (m *Manager) admit(id ca.Identity) error {
	view := m.store.View()
	if view.Cluster() == nil {
		return nil // this manager has just joined and knows nobody yet
	}
	n := view.Node(id.NodeID)
	if n == nil {
		return api.Errorf(api.Forbidden, "node %s is not a member of the cluster", id.NodeID)
	}
	if id.Role == swarm.NodeRoleManager && n.Spec.Role != swarm.NodeRoleManager {
		return api.Errorf(api.Forbidden, "node %s is no longer a manager", id.NodeID)
	}
	return nil
}

// Raft returns numbers about this manager's part in the group.
func (m *Manager) Raft() raftnode.Stats { return m.raft.Stats() }
