package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/dispatch"
	"shoal/control/manager"
	"shoal/control/rpc"
	"shoal/dns/server"
	"shoal/node/agent"
	"shoal/node/presence"
)

// member is a node's part in a cluster, from its start to its end.
type member struct {
	d      *Daemon
	state  *membership
	source *ca.Source
	client *rpc.Client
	// session talks with the leader.
	session *dispatch.Client
	// manager is nil on a worker.
	manager *manager.Manager

	cancel  context.CancelFunc
	wg      sync.WaitGroup
	leaving bool // set before close: nothing of the cluster is to stay
	turning atomic.Bool

	mu    sync.Mutex
	net   *overlayMember // nil until the managers have told this node of itself
	agent *agent.Agent   // likewise
	ready chan struct{}
}

// newMember brings up what needs no word from a manager: the manager itself on
// a node that is one.
func (d *Daemon) newMember(state *membership, creds *ca.Credentials) (*member, error) {
	m := &member{d: d, state: state, source: ca.NewSource(creds), ready: make(chan struct{})}
	m.client = rpc.NewClient(m.source, nil)
	m.session = &dispatch.Client{RPC: m.client, NodeID: state.NodeID, Managers: m.managers, Logger: d.cfg.Logger}
	if state.Role != swarm.NodeRoleManager {
		return m, nil
	}
	listener, err := net.Listen("tcp", state.ListenAddr)
	if err != nil {
		m.client.Close()
		return nil, fmt.Errorf("control port: %w", err)
	}
	m.manager, err = manager.Start(manager.Config{
		NodeID: state.NodeID, Dir: d.path("raft"), Listener: listener, Advertise: state.AdvertiseAddr,
		Source: m.source, Client: m.client, Election: d.cfg.Election, Now: time.Now, Logger: d.cfg.Logger,
	})
	if err != nil {
		m.client.Close()
		return nil, err
	}
	return m, nil
}

// run starts the loops: the manager's, and the session with the leader that
// feeds the agent. What the node knew before it was stopped is taken up first.
func (m *member) run() error {
	ctx, cancel := context.WithCancel(m.d.base)
	m.cancel = cancel
	if m.manager != nil {
		m.goRun(func() error { return m.manager.Run(ctx) })
	}
	if err := m.resume(ctx); err != nil {
		return err
	}
	m.goRun(func() error {
		return m.session.Run(ctx, func(a api.Assignment) error { return m.assign(ctx, a) }, source{m})
	})
	m.goRun(func() error { return m.renew(ctx) })
	return nil
}

// goRun runs a loop whose failure ends the daemon: half a node helps nobody.
func (m *member) goRun(loop func() error) {
	m.wg.Add(1)
	go func() {
		defer m.wg.Done()
		if err := loop(); err != nil && !errors.Is(err, context.Canceled) {
			m.d.fail(err)
		}
	}()
}

// resume takes up the tasks of an earlier run before any manager is heard.
func (m *member) resume(ctx context.Context) error {
	known, err := agent.LoadAssigned(m.d.path("agent"))
	if err != nil {
		return err
	}
	if known.Cluster == nil || known.Nodes[m.state.NodeID] == nil {
		return nil
	}
	return m.bringUp(ctx, known.Cluster, known.Nodes[m.state.NodeID])
}

// assign takes one message of the leader.
func (m *member) assign(ctx context.Context, a api.Assignment) error {
	m.mu.Lock()
	up := m.agent
	m.mu.Unlock()
	if up == nil {
		cluster, self, err := presence.Introduction(a, m.state.NodeID)
		if err != nil {
			return err
		}
		if err := m.bringUp(ctx, cluster, self); err != nil {
			return err
		}
	}
	if err := m.agent.Apply(a); err != nil {
		return err
	}
	m.learn(a)
	return nil
}

// learn follows what an assignment says of the nodes: whom to gossip with, whom
// to forget, where the managers are.
func (m *member) learn(a api.Assignment) {
	for _, op := range a.Ops {
		if c, ok := op.Object.(*api.Cluster); ok {
			m.net.setEpochs(c.TunnelKeys)
		}
	}
	m.net.Follow(a)
	nodes := m.agent.Assigned().Nodes
	var managers []string
	for _, n := range agent.List(nodes) {
		if n.Spec.Role == swarm.NodeRoleManager && n.RaftAddr != "" {
			managers = append(managers, n.RaftAddr)
		}
	}
	m.rememberManagers(managers)
	m.followRole(nodes[m.state.NodeID])
}

func (m *member) rememberManagers(managers []string) {
	slices.Sort(managers)
	m.mu.Lock()
	same := slices.Equal(m.state.Managers, managers)
	if !same && len(managers) > 0 {
		m.state.Managers = managers
	}
	state := *m.state
	m.mu.Unlock()
	if same || len(managers) == 0 {
		return
	}
	if err := m.d.saveMembership(&state); err != nil {
		m.d.cfg.Logger.Error("the managers' addresses are not on disk", "error", err)
	}
}

func (m *member) managers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Clone(m.state.Managers)
	if m.manager != nil && !slices.Contains(out, m.state.AdvertiseAddr) {
		out = append(out, m.state.AdvertiseAddr)
	}
	return out
}

// bringUp starts network and agent.
func (m *member) bringUp(ctx context.Context, cluster *api.Cluster, self *api.Node) error {
	dataPath, err := netip.ParseAddr(m.state.DataPathAddr)
	if err != nil {
		return fmt.Errorf("data path address: %w", err)
	}
	m.mu.Lock()
	m.state.Epoch++
	state := *m.state
	m.mu.Unlock()
	if err := m.d.saveMembership(&state); err != nil {
		return err
	}
	n, err := m.startNetwork(cluster, self, dataPath, state.Epoch)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Config{
		NodeID: m.state.NodeID, Hostname: m.d.cfg.Hostname, VTEP: dataPath, Addresses: n.self.Addresses,
		Dir: m.d.path("agent"), VolumeDir: m.d.path("volumes"), Runtime: m.d.runtime,
		Network: n.Fabric(), Endpoints: presence.Publisher{Presence: n.Presence, SettleTook: m.d.metrics.Settled},
		Changed: n.Fabric().Trigger, Now: time.Now, Logger: m.d.cfg.Logger, ResolvConf: m.d.taskResolvConf, MachineHosts: machineHosts,
		Scale: m.d.cfg.GossipScale, NameTTL: server.Outlived,
		Standalone: m.d.standalone,
	})
	if err != nil {
		return errors.Join(err, n.close(false))
	}
	m.mu.Lock()
	m.net, m.agent = n, a
	m.mu.Unlock()
	n.Serve(a)
	started := make(chan struct{})
	m.goRun(func() error { return a.Run(ctx, started) })
	<-started
	m.goRun(func() error { n.Run(ctx, n.prober.Run); return nil })
	close(m.ready)
	return nil
}

// close ends everything of the member; tasks go on running.
func (m *member) close() error {
	if m.cancel != nil {
		m.cancel()
	}
	m.wg.Wait()
	var errs []error
	if m.net != nil {
		errs = append(errs, m.net.close(m.leaving))
	}
	if m.manager != nil {
		errs = append(errs, m.manager.Close())
	}
	m.client.Close()
	return errors.Join(errs...)
}

// namespaceDir holds the network namespaces of this node.
func (d *Daemon) namespaceDir() (string, error) {
	dir := filepath.Join(d.cfg.ExecDir, "netns")
	return dir, os.MkdirAll(dir, 0o755)
}
