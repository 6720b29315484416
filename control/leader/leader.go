// Package leader runs the planners while this manager leads the cluster: it
// follows the store, lets allocator, orchestrators and scheduler decide on one
// snapshot, and proposes what they decided, until nobody wants anything more.
// It owns the only clock of the control plane. What a dead leader left half done
// is found by the first full look at the state.
//
// It fails loudly: an error that it cannot plan its way around ends Run. It
// never talks to nodes or clients.
package leader

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// Limits of one proposal.
const (
	maxBatchOps   = 500
	maxBatchBytes = 1_500_000
)

// How changes are gathered before a look: until it is quiet, but not for long.
const (
	quiet   = 10 * time.Millisecond
	patient = 50 * time.Millisecond
)

// subscription is how many commits the loop may be behind before it starts over.
const subscription = 4096

// maxRefusals is how often in a row the store may refuse what was planned on a
// fresh view before each service's share is proposed on its own: one that the
// store refuses must not hold up the others.
const maxRefusals = 3

// Clock is where time comes from.
type Clock interface {
	Now() time.Time
	// Timer returns a channel that delivers once, after d, and a function
	// that releases it.
	Timer(d time.Duration) (<-chan time.Time, func())
}

// Config is what the loop works with. Store and Propose are needed.
type Config struct {
	Store *store.Store
	// Propose commits the operations as one transaction and returns after
	// the Store has applied it. An api.Error is the store's refusal or, with
	// kind Unavailable, a lack of quorum. Proposals are applied in the order
	// in which they were made. It must not forward to another leader: two
	// loops that plan at once would get in each other's way.
	Propose func(ctx context.Context, now time.Time, ops []api.Op) error
	// Clock is the system's when nil.
	Clock Clock
	// NewID mints task ids; api.NewID when nil.
	NewID func() string
	// NewKey makes gossip keys; 32 random bytes when nil.
	NewKey func() []byte
	// Logger is slog's default when nil.
	Logger *slog.Logger
}

// Run plans and proposes until ctx ends, which it must when this manager no
// longer leads; it then returns ctx's error. Any other error says that the
// cluster is not being looked after any more.
func Run(ctx context.Context, c Config) error {
	if c.Clock == nil {
		c.Clock = system{}
	}
	if c.NewID == nil {
		c.NewID = api.NewID
	}
	if c.NewKey == nil {
		c.NewKey = randomKey
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	back := backoff{clock: c.Clock}
	for {
		err := follow(ctx, c, &back)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := back.judge(err); err != nil {
			return err
		}
		c.Logger.Info("planning starts over", "reason", err)
		if err := back.wait(ctx); err != nil {
			return err
		}
	}
}

// randomKey makes a key of AES-256.
func randomKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails, but ends the program
	return key
}

// errResync ends a session whose picture of the state is incomplete.
var errResync = errors.New("changes were missed")

// barrier changes nothing: the status of a task that never was is skipped. Once
// it is committed, every proposal made before it has been applied or never will
// be, also one whose outcome was not learnt.
var barrier = []api.Op{api.Status(&api.Task{Task: swarm.Task{ID: "none"}})}

// follow looks after the cluster from a fresh full look at it until something
// makes another full look necessary.
func follow(ctx context.Context, c Config, back *backoff) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.Propose(ctx, c.Clock.Now().UTC(), barrier); err != nil {
		return fmt.Errorf("wait for earlier proposals: %w", err)
	}
	s := newSession(c, c.Store.Subscribe(ctx, subscription))
	for {
		ops := s.round()
		if len(ops) == 0 {
			if err := s.wait(ctx); err != nil {
				return err
			}
			continue
		}
		if err := s.propose(ctx, ops, back.careful()); err != nil {
			return err
		}
		back.reset()
		if err := s.catchUp(ctx); err != nil {
			return err
		}
	}
}

// propose commits what was planned. When careful, it goes on after a refusal
// and returns the first one at the end.
func (s *session) propose(ctx context.Context, ops []api.Op, careful bool) error {
	batches := split(ops)
	if careful {
		batches = apart(ops)
	}
	var refused error
	for _, batch := range batches {
		err := s.Propose(ctx, s.now, batch)
		if err == nil {
			continue
		}
		err = fmt.Errorf("propose %s: %w", describe(batch), err)
		if !careful || !refusal(err) {
			return err
		}
		s.Logger.Error("the store refuses a plan", "error", err)
		if refused == nil {
			refused = err
		}
	}
	return refused
}

// describe names a batch in an error.
func describe(batch []api.Op) string {
	first := batch[0]
	return fmt.Sprintf("%d changes, the first to %s %s %s", len(batch), first.Action, first.Object.ObjectKind(), first.Object.ObjectID())
}
