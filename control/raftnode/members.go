package raftnode

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"shoal/control/api"
)

// Member is a manager as the Raft group knows it.
type Member struct {
	ID, Addr string
	// Leader says whether it is the leader this member knows of.
	Leader bool
	// Reachable says whether it answers: the leader (if there is one) or, without
	// one, this member.
	Reachable bool
}

const (
	// changeWait bounds the change of the list of managers.
	changeWait = 5 * time.Second
	// probeWait bounds the question whether a manager answers.
	probeWait = 500 * time.Millisecond
)

// Members lists the managers in the order in which they joined. On the leader
// Reachable is what its heartbeats say; elsewhere this member asks each one,
// which takes half a second when one does not answer.
func (n *Node) Members() []Member {
	return n.members(context.Background())
}

func (n *Node) members(ctx context.Context) []Member {
	leader, _ := n.Leader()
	servers := n.servers()
	out := make([]Member, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		m := &out[i]
		*m = Member{ID: string(s.ID), Addr: string(s.Address), Leader: string(s.ID) == leader}
		switch {
		case m.ID == n.cfg.ID, m.Leader:
			m.Reachable = true
		case n.IsLeader():
			m.Reachable = n.peers.answers(s.ID)
		default:
			wg.Go(func() { m.Reachable = n.probe(ctx, s.Address) == nil })
		}
	}
	wg.Wait()
	return out
}

// servers is the newest list of managers, nil before there is one.
func (n *Node) servers() []raft.Server {
	future := n.raft.GetConfiguration()
	if future.Error() != nil {
		return nil
	}
	return future.Configuration().Servers
}

// probe connects to a manager.
func (n *Node) probe(ctx context.Context, addr raft.ServerAddress) error {
	conn, err := n.streams.Dial(addr, timeout(ctx, probeWait))
	if err != nil {
		return err
	}
	return conn.Close()
}

// AddVoter adds a manager, or changes its address, on the leader. One that does
// not answer is refused: it would only make the majority harder to reach.
func (n *Node) AddVoter(ctx context.Context, id, addr string) error {
	if err := n.leading(ctx); err != nil {
		return err
	}
	if id != n.cfg.ID {
		if err := n.probe(ctx, raft.ServerAddress(addr)); err != nil {
			return api.Errorf(api.Unavailable, "manager %s does not answer at %s: %w", n.cfg.Name(id), addr, err)
		}
	}
	return n.await(ctx, n.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, timeout(ctx, changeWait)))
}

// RemoveServer removes a manager, on the leader. Removing one that is not there
// is no error; removing the last, or one without which the majority of the rest
// would not answer, is refused. A leader that removes itself shuts down.
func (n *Node) RemoveServer(ctx context.Context, id string) error {
	if err := n.leading(ctx); err != nil {
		return err
	}
	if err := n.checkRemoval(ctx, id); err != nil {
		return err
	}
	return n.await(ctx, n.raft.RemoveServer(raft.ServerID(id), 0, timeout(ctx, changeWait)))
}

func (n *Node) checkRemoval(ctx context.Context, id string) error {
	var rest, answer int
	for _, m := range n.members(ctx) {
		if m.ID == id {
			continue
		}
		rest++
		if m.Reachable {
			answer++
		}
	}
	if rest == 0 {
		return api.Errorf(api.Invalid, "manager %s is the last one and cannot be removed", n.cfg.Name(id))
	}
	if answer < rest/2+1 {
		return api.Errorf(api.Invalid, "manager %s cannot be removed: of the other %d only %d answer, which is no majority",
			n.cfg.Name(id), rest, answer)
	}
	return nil
}

// noLeader says why there is no leader.
func (n *Node) noLeader(ctx context.Context) error {
	// The caller's time may be up; the answer is worth half a second more.
	members := n.members(context.WithoutCancel(ctx))
	if len(members) == 0 {
		return api.Errorf(api.Unavailable, "manager %s belongs to no cluster yet", n.cfg.Name(n.cfg.ID))
	}
	var missing []string
	for _, m := range members {
		if !m.Reachable {
			missing = append(missing, fmt.Sprintf("%s (%s)", n.cfg.Name(m.ID), m.Addr))
		}
	}
	answer := len(members) - len(missing)
	if answer >= len(members)/2+1 {
		return api.Errorf(api.Unavailable, "the cluster has no leader: %d of %d managers answer and have not elected one yet, try again",
			answer, len(members))
	}
	return api.Errorf(api.Unavailable, "the cluster has no quorum: %d of %d managers answer; %s missing",
		answer, len(members), enumerate(missing))
}

// enumerate writes "a is", "a and b are", "a, b and c are".
func enumerate(names []string) string {
	last := len(names) - 1
	if last == 0 {
		return names[0] + " is"
	}
	return strings.Join(names[:last], ", ") + " and " + names[last] + " are"
}

// peers follows what raft observes. raft calls observe from its own goroutines
// as a filter, so nothing is dropped and no goroutine is needed here.
type peers struct {
	sync.Mutex
	silent map[raft.ServerID]bool
	// news is closed and renewed when leader or role may have changed.
	news chan struct{}
}

func newPeers() *peers {
	return &peers{silent: map[raft.ServerID]bool{}, news: make(chan struct{})}
}

// observe takes one observation and passes none on.
func (p *peers) observe(o *raft.Observation) bool {
	p.Lock()
	defer p.Unlock()
	switch seen := o.Data.(type) {
	case raft.FailedHeartbeatObservation:
		p.silent[seen.PeerID] = true
	case raft.ResumedHeartbeatObservation:
		delete(p.silent, seen.PeerID)
	case raft.PeerObservation:
		delete(p.silent, seen.Peer.ID)
	case raft.RaftState:
		// Only a leader sends heartbeats: a new one finds out afresh.
		clear(p.silent)
		p.renew()
	case raft.LeaderObservation:
		p.renew()
	}
	return false
}

func (p *peers) renew() {
	close(p.news)
	p.news = make(chan struct{})
}

func (p *peers) changed() <-chan struct{} {
	p.Lock()
	defer p.Unlock()
	return p.news
}

func (p *peers) answers(id raft.ServerID) bool {
	p.Lock()
	defer p.Unlock()
	return !p.silent[id]
}
