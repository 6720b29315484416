// Package containerd runs containers with containerd and runc. It owns one
// containerd namespace: every container, task, snapshot and image in it, and a
// record on disk of every container. It is the only package of the house that
// imports containerd's client, and it never makes or changes a network: it is
// given the path of one.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	ctrd "github.com/containerd/containerd"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/log"
	"golang.org/x/sync/singleflight"

	"shoal/node/runtime"
)

// runtimeName is containerd's name of the shim that drives runc.
const runtimeName = "io.containerd.runc.v2"

const (
	// connectPatience is how long New waits for a containerd that starts.
	connectPatience = 10 * time.Second
	connectPause    = 50 * time.Millisecond
)

// Config is what New needs.
type Config struct {
	// Address is the path of containerd's socket.
	Address string
	// Namespace is the containerd namespace to own, such as shoal-h1.
	Namespace string
	// StateDir is a directory of the node's own; records go to its containers/.
	StateDir string
	// CgroupParent is an absolute cgroup path, "/shoal" when empty. Containers
	// are at CgroupParent/Namespace/ID.
	CgroupParent string
	// NetNS is the path of the node's own network namespace, containerd's when empty.
	// It is opened whenever a container starts.
	NetNS string
	// LogBinary is the program whose sub-command log-writer runs LogWriterMain;
	// the program that runs when empty.
	LogBinary string
	// InsecureRegistries are host or host:port of registries spoken to without
	// TLS. Loopback ones always are.
	InsecureRegistries []string
	// Logger takes what happens to containers by itself; slog.Default when nil.
	Logger *slog.Logger
}

// Runtime is runtime.Runtime on containerd. It is safe for concurrent use.
type Runtime struct {
	cfg         Config
	log         *slog.Logger
	client      *ctrd.Client
	snapshotter string
	seccomp     bool
	registries  *registries
	images      imageCache
	pulls       singleflight.Group

	// ctx ends with Close and carries the namespace; watchers use it.
	ctx      context.Context
	stop     context.CancelFunc
	watchers sync.WaitGroup

	mu         sync.Mutex
	containers map[string]*container
}

var _ runtime.Runtime = (*Runtime)(nil)

// New connects to containerd, adopts the containers that an earlier process
// left and sweeps what has no record. It fails when containerd does not answer
// within ten seconds.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	// What the client library would log is in the errors that it returns.
	if err := log.SetLevel("error"); err != nil {
		return nil, fmt.Errorf("quieten containerd's client: %w", err)
	}
	client, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	r := &Runtime{
		cfg:        cfg,
		log:        cfg.Logger,
		client:     client,
		seccomp:    kernelHasSeccomp(),
		registries: newRegistries(cfg.InsecureRegistries),
		containers: map[string]*container{},
	}
	r.ctx, r.stop = context.WithCancel(namespaces.WithNamespace(context.Background(), cfg.Namespace))
	if err := r.begin(namespaces.WithNamespace(ctx, cfg.Namespace)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// connect waits for containerd, which may start at the same time as the node.
func connect(ctx context.Context, cfg Config) (*ctrd.Client, error) {
	deadline := time.Now().Add(connectPatience)
	for {
		client, err := ctrd.New(cfg.Address, ctrd.WithDefaultNamespace(cfg.Namespace), ctrd.WithTimeout(connectPatience))
		if err == nil {
			return client, nil
		}
		err = fmt.Errorf("connect to containerd at %s: %w", cfg.Address, err)
		if time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(connectPause):
		}
	}
}

func (c *Config) complete() error {
	if c.Namespace == "" || c.StateDir == "" {
		return fmt.Errorf("the runtime needs a containerd namespace and a state directory")
	}
	if c.CgroupParent == "" {
		c.CgroupParent = "/shoal"
	}
	if !filepath.IsAbs(c.CgroupParent) {
		return fmt.Errorf("cgroup parent %q is not an absolute path", c.CgroupParent)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.LogBinary == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the program for log-writer: %w", err)
		}
		c.LogBinary = self
	}
	if err := os.MkdirAll(c.recordDir(), 0o700); err != nil {
		return fmt.Errorf("make the record directory: %w", err)
	}
	return nil
}

func (c *Config) recordDir() string { return filepath.Join(c.StateDir, "containers") }

func (r *Runtime) begin(ctx context.Context) error {
	var err error
	if r.snapshotter, err = r.probeSnapshotter(ctx); err != nil {
		return err
	}
	return errors.Join(r.cfg.sweepExec(), r.adopt(ctx))
}

// Close ends the watchers and the connection. Containers go on.
func (r *Runtime) Close() error {
	r.stop()
	r.watchers.Wait()
	for _, c := range r.containers {
		_ = r.closeStdin(c) // the shim has an end of its own
	}
	if err := r.client.Close(); err != nil {
		return fmt.Errorf("close the connection to containerd: %w", err)
	}
	return nil
}

// Version is containerd's name and version.
func (r *Runtime) Version(ctx context.Context) (string, error) {
	v, err := r.client.Version(ctx)
	if err != nil {
		return "", fmt.Errorf("version of containerd: %w", err)
	}
	return "containerd " + v.Version, nil
}

// Snapshotter is the name of the snapshotter in use: overlayfs or native.
func (r *Runtime) Snapshotter() string { return r.snapshotter }

// scope gives ctx the containerd namespace.
func (r *Runtime) scope(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, r.cfg.Namespace)
}

// probeSnapshotter chooses overlayfs where containerd could load it, which it
// does only after mounting a trial overlay on its own directory.
func (r *Runtime) probeSnapshotter(ctx context.Context) (string, error) {
	answer, err := r.client.IntrospectionService().Plugins(ctx, []string{"type==io.containerd.snapshotter.v1"})
	if err != nil {
		return "", fmt.Errorf("list containerd's snapshotters: %w", err)
	}
	usable := map[string]bool{}
	for _, plugin := range answer.Plugins {
		usable[plugin.ID] = plugin.InitErr == nil
	}
	for _, name := range []string{"overlayfs", "native"} {
		if usable[name] {
			return name, nil
		}
	}
	return "", fmt.Errorf("containerd has neither the overlayfs nor the native snapshotter")
}
