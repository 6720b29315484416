package sim

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/genesis"
	"shoal/control/manager"
	"shoal/dataplane/lb"
)

// Config of a Cluster.
type Config struct {
	Managers, Workers int
	// Dir holds the hosts' disks.
	Dir string
	// Base is the first 24 bits of the hosts' addresses, inside 127.0.0.0/8.
	Base netip.Prefix
	// Election, Heartbeat and GossipScale are the pace, stretched for machines
	// that many tests share.
	Election, Heartbeat time.Duration
	GossipScale         float64
	// Fail is told what must never happen.
	Fail func(format string, args ...any)
	// Seed draws what packets are lost.
	Seed   uint64
	Logger *slog.Logger
}

// Cluster is the hosts and what connects them.
type Cluster struct {
	cfg      Config
	log      *slog.Logger
	underlay *Underlay
	hosts    []*Host
	tokens   swarm.JoinTokens
	watch    *watch
}

func (c *Cluster) fail(format string, args ...any) { c.cfg.Fail(format, args...) }

// NewCluster founds a cluster and lets every host join it.
func NewCluster(ctx context.Context, cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg, log: cfg.Logger, underlay: NewUnderlay(mathrand.New(mathrand.NewPCG(cfg.Seed, 1)))}
	c.watch = newWatch(c)
	addr := cfg.Base.Addr()
	for i := range cfg.Managers + cfg.Workers {
		addr = addr.Next()
		role, name := swarm.NodeRoleManager, fmt.Sprintf("m%d", i+1)
		if i >= cfg.Managers {
			role, name = swarm.NodeRoleWorker, fmt.Sprintf("w%d", i+1-cfg.Managers)
		}
		h := &Host{c: c, name: name, addr: addr, role: role, dir: filepath.Join(cfg.Dir, name), machine: newMachine()}
		h.machine.applied = func(before, after lb.Desired) { c.watch.applied(h, before, after) }
		c.hosts = append(c.hosts, h)
	}
	if err := c.found(ctx, c.hosts[0]); err != nil {
		return nil, errors.Join(fmt.Errorf("found the cluster: %w", err), c.Close())
	}
	if err := c.joinAll(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// found makes the first host a cluster of one.
func (c *Cluster) found(ctx context.Context, h *Host) error {
	h.id, h.managers = api.NewID(), []string{h.control()}
	founder := genesis.Founder{ClusterID: api.NewID(), NodeID: h.id, IngressID: api.NewID(), GossipKey: make([]byte, 32)}
	if _, err := rand.Read(founder.GossipKey); err != nil {
		return err
	}
	creds, err := c.certify(&founder)
	if err != nil {
		return err
	}
	if err := ca.SaveIdentity(filepath.Join(h.dir, "certificates"), creds); err != nil {
		return err
	}
	founder.Report = h.report(creds)
	var req swarm.InitRequest
	req.Spec.Dispatcher.HeartbeatPeriod = c.cfg.Heartbeat
	ops, err := genesis.State(req, founder)
	if err != nil {
		return err
	}
	d, err := h.newDaemon(creds)
	if err != nil {
		return err
	}
	h.setDaemon(d)
	c.tokens = founder.Tokens
	if err := d.manager.Bootstrap(ctx, ops); err != nil {
		return err
	}
	return d.run()
}

// certify makes the certificate authority, the tokens and the founder's certificate.
func (c *Cluster) certify(f *genesis.Founder) (*ca.Credentials, error) {
	root, err := ca.NewRoot(time.Now())
	if err != nil {
		return nil, err
	}
	if f.RootKeyPEM, err = root.KeyPEM(); err != nil {
		return nil, err
	}
	f.RootCertPEM = root.CertPEM()
	f.Tokens = swarm.JoinTokens{Worker: ca.NewToken(root.Cert).Reveal(), Manager: ca.NewToken(root.Cert).Reveal()}
	csr, key, err := ca.NewRequest()
	if err != nil {
		return nil, err
	}
	identity := ca.Identity{NodeID: f.NodeID, Role: swarm.NodeRoleManager, ClusterID: f.ClusterID}
	cert, err := root.Issue(csr, identity, time.Now(), ca.DefaultLifetime)
	if err != nil {
		return nil, err
	}
	return ca.NewCredentials(key, cert, f.RootCertPEM)
}

// joinAll lets the managers join one after the other, and then all workers at once.
func (c *Cluster) joinAll(ctx context.Context) error {
	first := []string{c.hosts[0].control()}
	var wg sync.WaitGroup
	errs := make([]error, len(c.hosts))
	for i, h := range c.hosts[1:] {
		if h.role == swarm.NodeRoleManager {
			if err := h.enter(ctx, c.tokens.Manager, first); err != nil {
				return err
			}
			continue
		}
		wg.Go(func() { errs[i] = h.enter(ctx, c.tokens.Worker, first) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, h := range c.hosts {
		select {
		case <-h.Daemon().ready:
		case <-ctx.Done():
			return fmt.Errorf("%s is not told of itself: %w", h.name, ctx.Err())
		}
	}
	return nil
}

// Close ends every daemon.
func (c *Cluster) Close() error {
	c.underlay.Heal()
	var wg sync.WaitGroup
	errs := make([]error, len(c.hosts))
	for i, h := range c.hosts {
		wg.Go(func() { errs[i] = h.Stop() })
	}
	wg.Wait()
	c.underlay.Wait()
	return errors.Join(errs...)
}

// Managers returns the managers whose daemon runs.
func (c *Cluster) Managers() (out []*Host) {
	for _, h := range c.hosts {
		if d := h.Daemon(); d != nil && d.manager != nil {
			out = append(out, h)
		}
	}
	return out
}

// Hosts returns all hosts whose daemon runs.
func (c *Cluster) Hosts() (out []*Host) {
	for _, h := range c.hosts {
		if h.Daemon() != nil {
			out = append(out, h)
		}
	}
	return out
}

// ByID finds the host of a node.
func (c *Cluster) ByID(id string) *Host {
	i := slices.IndexFunc(c.hosts, func(h *Host) bool { return h.id == id })
	if i < 0 {
		return nil
	}
	return c.hosts[i]
}

// Leader returns the host whose manager leads and is heard by most managers, nil
// when there is none at the moment.
func (c *Cluster) Leader() *Host {
	for _, h := range c.Managers() {
		heard := 0
		for _, other := range c.hosts[:c.cfg.Managers] {
			if c.underlay.Reachable(h.addr, other.addr) {
				heard++
			}
		}
		if m := managerOf(h); m != nil && m.Leads() && 2*heard > c.cfg.Managers {
			return h
		}
	}
	return nil
}

// managerOf returns a host's running manager, nil when there is none.
func managerOf(h *Host) *manager.Manager {
	if d := h.Daemon(); d != nil {
		return d.manager
	}
	return nil
}
