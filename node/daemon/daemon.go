// Package daemon puts a node together: it constructs the runtime, the API on its
// socket and, once the node is in a cluster, the manager, gossip, network and
// agent, and connects them. It decides nothing about tasks or networks.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"shoal/control/dockerapi/wire"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
	"shoal/dns/resolvconf"
	"shoal/node/engineapi"
	"shoal/node/metrics"
	"shoal/node/runtime"
	"shoal/node/runtime/containerd"
	"shoal/node/standalone"
	"shoal/overlay/netns"
)

// Config of a Daemon.
type Config struct {
	// StateDir holds everything the node must remember, mode 0700. ExecDir
	// holds network namespaces and the like, which a reboot may take away.
	StateDir, ExecDir string
	// Socket is the path of the API socket, made with mode 0660.
	Socket   string
	Hostname string
	// Containerd is the path of containerd's socket, ContainerdNamespace the
	// namespace in it that belongs to this node.
	Containerd, ContainerdNamespace string
	// ResolvConf is the path of the machine's resolv.conf. DNS is what tasks get
	// that do not say what they want, in place of what is in there.
	ResolvConf string
	DNS        resolvconf.Config
	// Balancer is auto, ipvs or nft.
	Balancer string
	// Election is the managers' election timeout, 0 for the default.
	Election time.Duration
	// GossipScale stretches the pace of gossip on slow machines; 0 is 1.
	GossipScale float64
	Version     string
	Logger      *slog.Logger
}

// Daemon is one running node.
type Daemon struct {
	cfg      Config
	runtime  runtime.Runtime
	balancer lb.Driver
	why      string // why that balancer
	can      *capabilities
	hides    error // why clients of published ports cannot keep their address
	unsealed error // why networks cannot be encrypted here
	engine   *engineapi.API
	// standalone has the containers that are no service's.
	standalone *standalone.Store
	metrics    *metrics.Metrics
	machine    machineConf

	mu     sync.Mutex
	busy   bool // a join, init or leave is under way
	member *member
	base   context.Context
	fatal  chan error
}

// Run runs a node until ctx ends. Tasks go on without it.
func Run(ctx context.Context, cfg Config) error {
	for _, dir := range []string{cfg.StateDir, cfg.ExecDir, filepath.Dir(cfg.Socket)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("directory of the node: %w", err)
		}
	}
	own, err := netns.Open("")
	if err != nil {
		return err
	}
	defer own.Close()
	rt, err := containerd.New(ctx, containerd.Config{
		Address: cfg.Containerd, Namespace: cfg.ContainerdNamespace, StateDir: cfg.StateDir, NetNS: own.Path(), Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	defer rt.Close()
	balancer, why, err := chooseBalancer(ctx, cfg.Balancer)
	if err != nil {
		return err
	}
	cfg.Logger.Info("balancer chosen", "balancer", balancer.Name(), "why", why)
	hides := nft.ProbeReturn(ctx)
	if hides != nil {
		cfg.Logger.Warn("clients of published ports are hidden behind the nodes they enter by", "why", hides)
	}
	can := newCapabilities(balancer)
	d := &Daemon{cfg: cfg, unsealed: can.probeEncryption(ctx), runtime: rt, balancer: balancer, why: why, can: can, hides: hides, base: ctx, fatal: make(chan error, 1)}
	d.metrics = metrics.New(cfg.Version, balancer.Name(), d.metricSources)
	d.machine.path = cfg.ResolvConf
	return d.run(ctx)
}

func (d *Daemon) run(ctx context.Context) error {
	handler, err := d.router()
	if err != nil {
		return err
	}
	defer d.standalone.Close()
	if err := d.resume(); err != nil {
		return err
	}
	defer d.stopMember()
	listener, err := listenUnix(d.cfg.Socket)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(d.cfg.Logger.Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err = <-served:
	case err = <-d.fatal:
	case <-ctx.Done():
	}
	return errors.Join(ignoreClosed(err), ignoreClosed(server.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// listenUnix makes the API socket; one that a dead process left is replaced, one
// that a living process answers on is not.
func listenUnix(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("another daemon answers on %s", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("socket of an earlier process: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// router mounts both halves of the Docker API and Shoal's own views.
func (d *Daemon) router() (http.Handler, error) {
	rt := wire.NewRouter(d.cfg.Logger)
	cluster := d.clusterAPI()
	var err error
	if d.standalone, err = d.openStandalone(); err != nil {
		return nil, err
	}
	d.engine = engineapi.New(engineapi.Config{
		Runtime: d.runtime, Swarm: d.Info, Hostname: d.cfg.Hostname, Version: d.cfg.Version, StateDir: d.cfg.StateDir,
		ClusterEvents: cluster.Events, Health: d.health, Ports: d.hostPorts, NetworkMode: d.networkMode, Standalone: d.standalone, Now: time.Now,
	})
	d.engine.Mount(rt)
	d.standalone.Resume()
	cluster.Mount(rt)
	d.mountViews(rt)
	rt.Handle(http.MethodPost, "/shoal/rotate", d.rotate)
	mountProfiles(rt)
	return d.whenCaughtUp(rt), nil
}

// catchUpPatience bounds how long a request about the cluster waits for a manager
// that has just started.
const catchUpPatience = 5 * time.Second

// whenCaughtUp holds requests about the cluster back until this manager knows
// what was committed before it started: an old answer would be a wrong one.
func (d *Daemon) whenCaughtUp(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m := d.current(); m != nil && m.manager != nil && aboutCluster.MatchString(r.URL.Path) {
			ctx, cancel := context.WithTimeout(r.Context(), catchUpPatience)
			err := m.manager.CaughtUp(ctx)
			if err == nil && r.Method != http.MethodGet && r.Method != http.MethodHead {
				m.manager.Fresh(ctx) // what another manager just acknowledged is there
			}
			cancel()
			if err != nil {
				wire.WriteError(w, err)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// aboutCluster matches the routes that answer from the cluster's state.
var aboutCluster = regexp.MustCompile(`^(/v[0-9.]+)?/(services|nodes|tasks|networks|secrets|configs|swarm$|swarm/(update|unlockkey))`)
