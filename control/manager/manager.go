// Package manager puts a manager together: the replicated store and its Raft
// member, the control port with the routes that other nodes call, and, while
// this manager leads, the planners' loop and the dispatcher. It constructs and
// connects; what is decided is decided elsewhere.
package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/dispatch"
	"shoal/control/join"
	"shoal/control/leader"
	"shoal/control/raftnode"
	"shoal/control/rpc"
	"shoal/control/store"
)

// Config of a Manager. All fields but Dial, Election and Logger are needed.
type Config struct {
	NodeID string
	// Dir holds Raft's log and snapshots.
	Dir string
	// Listener is the bound control port; the Manager closes it.
	Listener net.Listener
	// Advertise is host:port under which other nodes reach the listener.
	Advertise string
	Source    *ca.Source
	// Client calls other managers; the Manager does not close it.
	Client *rpc.Client
	// Dial opens Raft's connections; nil for the ordinary way.
	Dial     rpc.DialFunc
	Election time.Duration
	Now      func() time.Time
	Logger   *slog.Logger
}

// Manager is one running manager.
type Manager struct {
	cfg        Config
	store      *store.Store
	raft       *raftnode.Node
	server     *rpc.Server
	client     *rpc.Client
	dispatcher *dispatch.Dispatcher
	caughtUp   chan struct{} // closed once the store holds what was committed before the start
	upToDate   atomic.Bool   // this manager leads, and its store holds what was committed before
}

// Start brings the manager up with what its directory holds. It takes no part
// in a cluster before Bootstrap, or before another manager has added it.
func Start(cfg Config) (*Manager, error) {
	m := &Manager{cfg: cfg, store: store.New(), client: cfg.Client, caughtUp: make(chan struct{})}
	m.dispatcher = dispatch.New(dispatch.Config{
		Store: m.store, Propose: m.proposeHere, Now: cfg.Now, Leader: m.leader, Logger: cfg.Logger,
	})
	opened := make(chan struct{})
	m.server = rpc.New(rpc.Config{
		Listener: cfg.Listener, Advertise: cfg.Advertise, Source: cfg.Source, Handler: after(opened, m.routes()), Dial: cfg.Dial, Logger: cfg.Logger,
	})
	var err error
	m.raft, err = raftnode.Open(raftnode.Config{
		ID: cfg.NodeID, AdvertiseAddr: cfg.Advertise, Dir: cfg.Dir, Store: m.store, Stream: m.server.RaftStream(),
		Name: m.hostname, Logger: cfg.Logger, Election: cfg.Election,
	})
	if err != nil {
		return nil, errors.Join(err, m.server.Close())
	}
	close(opened)
	return m, nil
}

// after holds requests back until the manager can answer them: Raft needs the
// port before it opens, and the routes need Raft.
func after(opened <-chan struct{}, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-opened:
			h.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// routes is what other nodes may call, and who may.
func (m *Manager) routes() *rpc.Mux {
	mux := rpc.NewMux(m.admit)
	m.dispatcher.Register(mux)
	(&join.Server{
		Store: m.store, Propose: m.Propose, Leading: m.ruling, Now: m.cfg.Now,
		AddVoter: func(ctx context.Context, id, addr string) error { return notLeader(m.raft.AddVoter(ctx, id, addr)) },
	}).Register(mux)
	mux.Handle("POST "+proposePath, m.servePropose, swarm.NodeRoleManager)
	mux.Handle("POST "+indexPath, m.serveIndex, swarm.NodeRoleManager)
	mux.Handle("POST "+leavePath, m.serveRaftLeave, swarm.NodeRoleManager)
	return mux
}

// leading returns nil on the leader, elsewhere the error that says who leads.
func (m *Manager) leading() error {
	if m.raft.IsLeader() {
		return nil
	}
	return &rpc.NotLeaderError{Leader: m.leader()}
}

// ruling is leading of a leader that knows all its predecessor committed: before that
// it might give a certificate to a node whose removal it has not heard of. Whoever asks
// tries again.
func (m *Manager) ruling() error {
	if err := m.leading(); err != nil {
		return err
	}
	if !m.upToDate.Load() {
		return &rpc.NotLeaderError{}
	}
	return nil
}

// hostname names a manager for people.
func (m *Manager) hostname(id string) string {
	if n := m.store.View().Node(id); n != nil && n.Description.Hostname != "" {
		return n.Description.Hostname
	}
	return id
}

// Run serves until ctx ends; while this manager leads, it plans and dispatches.
// An error means that the manager can do its work no longer.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Add(1)
	go func() { defer wg.Done(); m.catchUp(ctx) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case leads := <-m.raft.LeadershipChanges():
			if !leads {
				continue
			}
			if err := m.keepLeading(ctx); err != nil {
				return fmt.Errorf("leading the cluster: %w", err)
			}
		}
	}
}

// leadPause is how long a leader that could not reach its majority waits before
// it begins anew.
const leadPause = 50 * time.Millisecond

// keepLeading leads until another manager does. A leader whose majority did not
// answer, or that lost the lead and has it again, begins anew with what is
// committed by then; any other error is final.
func (m *Manager) keepLeading(ctx context.Context) error {
	for {
		err := m.lead(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if api.KindOf(err) != api.Unavailable && !nobodyTook(err) {
			return err
		}
		m.cfg.Logger.Warn("the leader begins anew", "error", err)
		select {
		case <-time.After(leadPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// lead does the leader's work until this manager no longer leads.
func (m *Manager) lead(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := m.raft.Barrier(ctx); err != nil {
		return m.unlessDeposed(err) // a new leader first learns what the old one committed
	}
	m.upToDate.Store(true)
	defer m.upToDate.Store(false)
	errs := make(chan error, 3)
	var wg sync.WaitGroup
	for _, work := range []func(context.Context) error{m.plan, m.dispatcher.Run, m.watchManagers} {
		wg.Add(1)
		go func() { defer wg.Done(); errs <- work(ctx) }()
	}
	var err error
	for leads := true; leads && err == nil; {
		select {
		case leads = <-m.raft.LeadershipChanges():
		case err = <-errs:
		case <-ctx.Done():
			leads = false
		}
	}
	cancel()
	wg.Wait()
	return m.unlessDeposed(err)
}

// unlessDeposed drops an error that came only because another manager leads.
func (m *Manager) unlessDeposed(err error) error {
	if !m.raft.IsLeader() || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (m *Manager) plan(ctx context.Context) error {
	return leader.Run(ctx, leader.Config{
		Store: m.store, Logger: m.cfg.Logger,
		Propose: func(ctx context.Context, now time.Time, ops []api.Op) error {
			_, err := m.raft.Propose(ctx, now, ops)
			return err
		},
	})
}

func (m *Manager) proposeHere(ctx context.Context, ops []api.Op) error {
	_, err := m.raft.Propose(ctx, m.cfg.Now(), ops)
	return notLeader(err)
}

// Bootstrap founds a cluster with this manager as its only one.
func (m *Manager) Bootstrap(ctx context.Context, ops []api.Op) error {
	if err := m.raft.Bootstrap(); err != nil {
		return err
	}
	return m.Propose(ctx, ops)
}

// View returns what this manager knows of the cluster.
func (m *Manager) View() *store.View { return m.store.View() }

// Store returns the replicated store, for watching.
func (m *Manager) Store() *store.Store { return m.store }

// Members lists the managers as Raft knows them.
func (m *Manager) Members() []raftnode.Member { return m.raft.Members() }

// Peers lists the managers' control addresses, as nodes are told.
func (m *Manager) Peers() []swarm.Peer {
	var out []swarm.Peer
	for _, n := range m.store.View().Nodes() {
		if n.Spec.Role == swarm.NodeRoleManager && n.RaftAddr != "" {
			out = append(out, swarm.Peer{NodeID: n.ID, Addr: n.RaftAddr})
		}
	}
	return out
}

// Leads says whether this manager believes to be the leader.
func (m *Manager) Leads() bool { return m.raft.IsLeader() }

// leader is the leader's control address, "" while none is known.
func (m *Manager) leader() string {
	_, addr := m.raft.Leader()
	return addr
}

// Close ends the manager; it stays a member of its cluster.
func (m *Manager) Close() error {
	if m.raft.IsLeader() {
		ctx, cancel := context.WithTimeout(context.Background(), handOver)
		defer cancel()
		// Without anyone to hand over to, the rest of the cluster elects.
		_ = m.raft.TransferLeadership(ctx)
	}
	return errors.Join(m.raft.Shutdown(), m.server.Close())
}

// handOver bounds how long a closing leader tries to name its successor.
const handOver = time.Second
