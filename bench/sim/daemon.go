package sim

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/dispatch"
	"shoal/control/manager"
	"shoal/control/rpc"
	"shoal/node/agent"
	"shoal/node/presence"
)

// daemon is one run of a host's daemon. It connects the rooms as node/daemon
// does, with the host's machine where that one has a kernel.
type daemon struct {
	h       *Host
	source  *ca.Source
	client  *rpc.Client
	session *dispatch.Client
	manager *manager.Manager // nil on a worker
	api     http.Handler     // the manager's Docker API

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	net   *network
	agent *agent.Agent
	ready chan struct{}
}

func (h *Host) newDaemon(creds *ca.Credentials) (*daemon, error) {
	d := &daemon{h: h, source: ca.NewSource(creds), ready: make(chan struct{})}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	dial := h.c.underlay.Dialer(h.addr)
	d.client = rpc.NewClient(d.source, dial)
	d.session = &dispatch.Client{RPC: d.client, NodeID: h.id, Managers: d.managers, Logger: h.logger()}
	if h.role != swarm.NodeRoleManager {
		return d, nil
	}
	listener, err := h.c.underlay.Listen(netip.AddrPortFrom(h.addr, controlPort))
	if err == nil {
		d.manager, err = manager.Start(manager.Config{
			NodeID: h.id, Dir: filepath.Join(h.dir, "raft"), Listener: listener, Advertise: h.control(), Source: d.source,
			Client: d.client, Dial: dial, Election: h.c.cfg.Election, Now: time.Now, Logger: h.logger(),
		})
	}
	if err != nil {
		d.client.Close()
		return nil, err
	}
	d.api = d.router()
	return d, nil
}

func (d *daemon) run() error {
	if d.manager != nil {
		d.wg.Go(func() { d.h.c.watch.follow(d.ctx, d.h, d.manager.Store()) })
		d.goRun("manager", func() error { return d.manager.Run(d.ctx) })
	}
	known, err := agent.LoadAssigned(filepath.Join(d.h.dir, "agent"))
	if err != nil {
		return err
	}
	if known.Cluster != nil && known.Nodes[d.h.id] != nil {
		if err := d.bringUp(known.Cluster, known.Nodes[d.h.id]); err != nil {
			return err
		}
	}
	d.goRun("session", func() error { return d.session.Run(d.ctx, d.assign, source{d}) })
	return nil
}

// goRun runs a loop that may end only when the daemon does: a failure is one of
// the product.
func (d *daemon) goRun(what string, loop func() error) {
	d.wg.Go(func() {
		if err := loop(); err != nil && d.ctx.Err() == nil {
			d.h.c.fail("%s of %s ended: %v", what, d.h.name, err)
		}
	})
}

func (d *daemon) managers() []string {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	return slices.Clone(d.h.managers)
}

// assign takes one message of the leader.
func (d *daemon) assign(a api.Assignment) error {
	d.mu.Lock()
	up := d.agent
	d.mu.Unlock()
	if up == nil {
		cluster, self, err := presence.Introduction(a, d.h.id)
		if err != nil {
			return err
		}
		if err := d.bringUp(cluster, self); err != nil {
			return err
		}
	}
	if err := d.agent.Apply(a); err != nil {
		return err
	}
	d.learn(a)
	return nil
}

// learn follows what an assignment says of the other nodes.
func (d *daemon) learn(a api.Assignment) {
	d.net.Follow(a)
	var managers []string
	for _, n := range agent.List(d.agent.Assigned().Nodes) {
		if n.Spec.Role == swarm.NodeRoleManager && n.RaftAddr != "" {
			managers = append(managers, n.RaftAddr)
		}
	}
	if len(managers) > 0 {
		d.h.mu.Lock()
		d.h.managers = managers
		d.h.mu.Unlock()
	}
}

// bringUp starts network and agent.
func (d *daemon) bringUp(cluster *api.Cluster, self *api.Node) error {
	d.h.mu.Lock()
	d.h.epoch++
	epoch := d.h.epoch
	d.h.mu.Unlock()
	n, err := d.startNetwork(cluster, self, epoch)
	if err != nil {
		return err
	}
	a, err := agent.New(agent.Config{
		NodeID: d.h.id, Hostname: d.h.name, VTEP: d.h.addr, Dir: filepath.Join(d.h.dir, "agent"), VolumeDir: filepath.Join(d.h.dir, "volumes"),
		Runtime: d.h.machine.runtime, Network: n.Fabric(), Endpoints: publisher{presence.Publisher{Presence: n.Presence, SettleTook: func(time.Duration, int) {}}, d.h},
		Changed: n.Fabric().Trigger, Now: time.Now, Logger: d.h.logger(), ResolvConf: func(*api.Task) string { return "nameserver 127.0.0.11\n" },
		Scale: d.h.c.cfg.GossipScale,
	})
	if err != nil {
		return errors.Join(err, n.Gossip().Shutdown())
	}
	d.mu.Lock()
	d.net, d.agent = n, a
	d.mu.Unlock()
	n.Serve(a)
	d.wg.Go(func() { d.h.c.watch.followTable(d.ctx, d.h, n.Table()) })
	started := make(chan struct{})
	d.goRun("agent", func() error { return a.Run(d.ctx, started) })
	<-started
	d.goRun("network", func() error { n.Run(d.ctx); return nil })
	close(d.ready)
	return nil
}

// rooms returns network and agent, nil before the managers told of this node.
func (d *daemon) rooms() (*network, *agent.Agent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.net, d.agent
}

// stop ends the daemon; tasks go on.
func (d *daemon) stop() error {
	d.cancel()
	d.wg.Wait()
	var errs []error
	if d.net != nil {
		errs = append(errs, d.net.Gossip().Shutdown())
	}
	if d.manager != nil {
		errs = append(errs, d.manager.Close())
	}
	d.client.Close()
	return errors.Join(errs...)
}

// source is what a session reports from.
type source struct{ d *daemon }

// Node implements dispatch.Source.
func (s source) Node() api.NodeReport {
	r := s.d.h.report(s.d.source.Current())
	if n, _ := s.d.rooms(); n != nil {
		r.GossipStep = n.GossipStep()
	}
	return r
}

// All implements dispatch.Source.
func (s source) All() []api.TaskReport {
	if _, a := s.d.rooms(); a != nil {
		return a.All()
	}
	return nil
}

// Unreported implements dispatch.Source.
func (s source) Unreported() []api.TaskReport {
	if _, a := s.d.rooms(); a != nil {
		return a.Unreported()
	}
	return nil
}

// Requeue implements dispatch.Source.
func (s source) Requeue(reports []api.TaskReport) {
	if _, a := s.d.rooms(); a != nil {
		a.Requeue(reports)
	}
}

// Level implements dispatch.Source.
func (s source) Level() uint64 {
	if _, a := s.d.rooms(); a != nil {
		return a.Level()
	}
	return 0
}

// Beyond implements dispatch.Source.
func (s source) Beyond() *api.Beyond {
	if _, a := s.d.rooms(); a != nil {
		return a.Beyond()
	}
	return nil
}

// Wake implements dispatch.Source.
func (s source) Wake() <-chan struct{} {
	if _, a := s.d.rooms(); a != nil {
		return a.Wake()
	}
	return nil
}
