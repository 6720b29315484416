package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/dockerapi"
	"shoal/control/dockerapi/wire"
	"shoal/control/join"
	"shoal/node/agent"
)

// controlPort and gossipPort are the same on every host.
const (
	controlPort = 2377
	gossipPort  = 7946
)

// Host is a machine that is a node of the cluster: what is on its disk, its
// kernel and containers, and the daemon while one runs.
type Host struct {
	c    *Cluster
	name string
	addr netip.Addr
	role swarm.NodeRole
	dir  string
	*machine

	// What the daemon keeps on disk besides the rooms' own files.
	mu       sync.Mutex
	id       string
	managers []string
	epoch    uint64

	daemonMu sync.Mutex
	daemon   *daemon // nil while none runs
}

func (h *Host) control() string { return netip.AddrPortFrom(h.addr, controlPort).String() }

func (h *Host) logger() *slog.Logger { return h.c.log.With("host", h.name) }

// Daemon returns the daemon that runs, nil when none does.
func (h *Host) Daemon() *daemon {
	h.daemonMu.Lock()
	defer h.daemonMu.Unlock()
	return h.daemon
}

func (h *Host) setDaemon(d *daemon) {
	h.daemonMu.Lock()
	defer h.daemonMu.Unlock()
	h.daemon = d
}

// enter makes the host a node with a join token, and starts its daemon.
func (h *Host) enter(ctx context.Context, token string, remotes []string) error {
	creds, err := join.Join(ctx, join.Request{Remotes: remotes, Token: token, Hostname: h.name, Dial: h.c.underlay.Dialer(h.addr)})
	if err != nil {
		return fmt.Errorf("join %s: %w", h.name, err)
	}
	identity, err := ca.IdentityOf(creds.Leaf)
	if err != nil {
		return err
	}
	h.id, h.managers = identity.NodeID, remotes
	if err := ca.SaveIdentity(filepath.Join(h.dir, "certificates"), creds); err != nil {
		return err
	}
	d, err := h.newDaemon(creds)
	if err != nil {
		return err
	}
	if d.manager != nil {
		if err := d.manager.JoinRaft(ctx, remotes); err != nil {
			return errors.Join(fmt.Errorf("manager %s: %w", h.name, err), d.stop())
		}
	}
	h.setDaemon(d)
	return d.run()
}

// Start starts the daemon over what the host's disk holds.
func (h *Host) Start() error {
	creds, err := ca.LoadIdentity(filepath.Join(h.dir, "certificates"))
	if err != nil {
		return err
	}
	h.c.watch.disturbed(h)
	h.c.underlay.On(h.addr)
	d, err := h.newDaemon(creds)
	if err != nil {
		return fmt.Errorf("start %s: %w", h.name, err)
	}
	h.setDaemon(d)
	return d.run()
}

// Stop ends the daemon as a service manager does: in order, tasks go on.
func (h *Host) Stop() error {
	d := h.Daemon()
	if d == nil {
		return nil
	}
	h.c.watch.withdrawAll(h)
	h.setDaemon(nil)
	err := d.stop()
	h.c.watch.withdrawAll(h)
	h.c.watch.disturbed(h)
	return err
}

// Kill ends the daemon as kill -9 does: nobody is told anything but that the
// streams are gone. Containers and kernel stay.
func (h *Host) Kill() {
	h.c.underlay.Off(h.addr, true)
	if err := h.Stop(); err != nil {
		h.logger().Debug("what a killed daemon could not do any more", "error", err)
	}
}

// PowerCut ends everything on the host without a word to anybody.
func (h *Host) PowerCut() {
	h.c.underlay.Off(h.addr, false)
	if err := h.Stop(); err != nil {
		h.logger().Debug("what a host without power could not do any more", "error", err)
	}
	h.reboot()
}

// report describes the host to the managers.
func (h *Host) report(creds *ca.Credentials) api.NodeReport {
	r := api.NodeReport{
		Addr: h.addr.String(), DataPathAddr: h.addr.String(),
		Description: swarm.NodeDescription{
			Hostname: h.name, Platform: agent.Platform(),
			Resources: swarm.Resources{NanoCPUs: 4e9, MemoryBytes: 8 << 30},
			Engine:    swarm.EngineDescription{EngineVersion: "sim"},
			TLSInfo:   creds.TLSInfo(),
		},
	}
	if h.role == swarm.NodeRoleManager {
		r.RaftAddr = h.control()
	}
	return r
}

// router is the Docker API of a manager.
func (d *daemon) router() *wire.Router {
	rt := wire.NewRouter(d.h.logger())
	dockerapi.New(dockerapi.Config{
		Store: d.manager.Store, Proposer: d.manager, Lifecycle: lifecycle{d}, Now: time.Now,
	}).Mount(rt)
	return rt
}

// lifecycle is a node that is in its cluster and stays there.
type lifecycle struct{ d *daemon }

var errSettled = api.Errorf(api.Unavailable, "the simulation's nodes do not change their cluster")

// Init implements dockerapi.Lifecycle.
func (lifecycle) Init(context.Context, swarm.InitRequest) (string, error) { return "", errSettled }

// Join implements dockerapi.Lifecycle.
func (lifecycle) Join(context.Context, swarm.JoinRequest) error { return errSettled }

// Leave implements dockerapi.Lifecycle.
func (lifecycle) Leave(context.Context, bool) error { return errSettled }

// Info implements dockerapi.Lifecycle.
func (l lifecycle) Info() swarm.Info {
	return swarm.Info{NodeID: l.d.h.id, NodeAddr: l.d.h.addr.String(), LocalNodeState: swarm.LocalNodeStateActive, ControlAvailable: true}
}
