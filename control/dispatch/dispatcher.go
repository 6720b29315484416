package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"shoal/control/api"
	"shoal/control/rpc"
	"shoal/control/store"
)

// Config is what a Dispatcher needs.
type Config struct {
	// Store is the manager's own.
	Store *store.Store
	// Propose commits operations and returns when Store holds them.
	Propose func(ctx context.Context, ops []api.Op) error
	// Heartbeat is how often nodes must report; 0 takes the cluster's
	// setting, and DefaultHeartbeat without one.
	Heartbeat time.Duration
	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Leader returns host:port of the leader's control listener, "" when it
	// is not known: what nodes are told while Run does not run here.
	Leader func() string
	// Logger hears of nodes that are lost and found; slog.Default() when nil.
	Logger *slog.Logger
}

// Dispatcher serves nodes while Run runs, that is while this manager leads.
type Dispatcher struct {
	cfg Config

	mu   sync.Mutex
	term *term // nil while not leading
}

// New makes a Dispatcher, which refuses everything until Run.
func New(cfg Config) *Dispatcher {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Dispatcher{cfg: cfg}
}

// term is what lives as long as one leadership.
type term struct {
	*Dispatcher
	ctx     context.Context
	hub     *hub
	pulse   *pulse
	levels  *levels
	reports chan *pendingReport
}

// Run serves until ctx ends, which must be when leadership does. It returns nil
// then; any other end is an error. All sessions end with it.
func (d *Dispatcher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := d.begin(ctx)
	defer func() {
		d.mu.Lock()
		d.term = nil
		d.mu.Unlock()
	}()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.hub.follow(ctx, d.cfg.Store) })
	group.Go(func() error { return t.batchReports(ctx) })
	group.Go(func() error { return t.watchPulse(ctx) })
	group.Go(func() error { return t.watchRelease(ctx) })
	err := group.Wait()
	if ctx.Err() != nil && err == context.Canceled {
		return nil
	}
	return err
}

func (d *Dispatcher) begin(ctx context.Context) *term {
	t := &term{
		Dispatcher: d, ctx: ctx, hub: newHub(), pulse: newPulse(), levels: newLevels(),
		reports: make(chan *pendingReport, reportQueue),
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.term = t
	return t
}

// leading returns the present term, or the error that names the leader.
func (d *Dispatcher) leading() (*term, error) {
	d.mu.Lock()
	t := d.term
	d.mu.Unlock()
	if t == nil {
		return nil, d.notLeader()
	}
	return t, nil
}

func (d *Dispatcher) notLeader() error {
	leader := ""
	if d.cfg.Leader != nil {
		leader = d.cfg.Leader()
	}
	return &rpc.NotLeaderError{Leader: leader}
}

// heartbeat returns the period in force.
func (d *Dispatcher) heartbeat(view *store.View) time.Duration {
	if d.cfg.Heartbeat > 0 {
		return d.cfg.Heartbeat
	}
	if c := view.Cluster(); c != nil && c.Spec.Dispatcher.HeartbeatPeriod > 0 {
		return c.Spec.Dispatcher.HeartbeatPeriod
	}
	return DefaultHeartbeat
}

// member returns the node, or api.NotFound for one that the cluster does not
// have (any more).
func member(view *store.View, nodeID string) (*api.Node, error) {
	if n := view.Node(nodeID); n != nil {
		return n, nil
	}
	return nil, api.Errorf(api.NotFound, "node %s not found", nodeID)
}
