// Package reconcile is the one loop behind every owner of kernel state:
// triggers are coalesced, one step at a time reads, plans and applies, failures
// back off, and a resync runs even when nothing triggered, so that what someone
// changed by hand is put right. It knows nothing of what a step does.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Config of a Loop. Zero durations take the defaults named.
type Config struct {
	// Name is what the loop keeps right, for errors and status.
	Name string
	// Step makes the world as it should be. It must be safe to repeat.
	Step func(context.Context) error
	// Quiet is how long a trigger waits for more of its kind (2 ms).
	Quiet time.Duration
	// Resync is the longest time between two steps (5 s).
	Resync time.Duration
	// BackoffMax bounds the wait after failures, which doubles from 50 ms (5 s).
	BackoffMax time.Duration
	// Settled, if not nil, is told after a good step how long ago the first of the
	// triggers was that the step covers.
	Settled func(since time.Duration)
}

const backoffMin = 50 * time.Millisecond

// Loop runs steps. Its methods are safe for concurrent use.
type Loop struct {
	cfg     Config
	trigger chan struct{}

	mu     sync.Mutex
	wanted uint64        // generation of the newest trigger
	since  time.Time     // the first trigger that no good step has covered, zero for none
	done   uint64        // generation that the last good step covers
	tried  uint64        // generation that the last step covers, good or not
	failed error         // what the last step said
	moved  chan struct{} // closed and replaced after every step
	status Status
}

// Status is how a loop is doing.
type Status struct {
	Name     string
	Steps    uint64
	Failures uint64
	// Err is the last step's error, "" when it went well.
	Err string
	// Took is the duration of the last step.
	Took time.Duration
}

// New returns a Loop; nothing happens before Run.
func New(cfg Config) *Loop {
	if cfg.Quiet == 0 {
		cfg.Quiet = 2 * time.Millisecond
	}
	if cfg.Resync == 0 {
		cfg.Resync = 5 * time.Second
	}
	if cfg.BackoffMax == 0 {
		cfg.BackoffMax = 5 * time.Second
	}
	return &Loop{cfg: cfg, trigger: make(chan struct{}, 1), moved: make(chan struct{}), status: Status{Name: cfg.Name}}
}

// Trigger asks for a step that begins after now and returns its generation, for Wait.
func (l *Loop) Trigger() uint64 {
	l.mu.Lock()
	l.wanted++
	generation := l.wanted
	if l.since.IsZero() {
		l.since = time.Now()
	}
	l.mu.Unlock()
	select {
	case l.trigger <- struct{}{}:
	default:
	}
	return generation
}

// Wait returns when a step that began after that Trigger went well, or with the
// last step's error when ctx ends first.
func (l *Loop) Wait(ctx context.Context, generation uint64) error {
	for {
		l.mu.Lock()
		done, moved, last := l.done, l.moved, l.status.Err
		l.mu.Unlock()
		if done >= generation {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			if last != "" {
				return fmt.Errorf("%s: %s: %w", l.cfg.Name, last, ctx.Err())
			}
			return fmt.Errorf("%s: %w", l.cfg.Name, ctx.Err())
		}
	}
}

// WaitFor is Wait, but content with a step that failed for reasons that content
// accepts.
func (l *Loop) WaitFor(ctx context.Context, generation uint64, content func(error) bool) error {
	for {
		l.mu.Lock()
		tried, failed, moved := l.tried, l.failed, l.moved
		l.mu.Unlock()
		if tried >= generation && (failed == nil || content(failed)) {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", l.cfg.Name, errors.Join(failed, ctx.Err()))
		}
	}
}

// Status returns how the loop is doing.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Run steps until ctx ends. The first step runs at once.
func (l *Loop) Run(ctx context.Context) {
	backoff := time.Duration(0)
	for ctx.Err() == nil {
		if err := l.step(ctx); err != nil {
			backoff = min(max(2*backoff, backoffMin), l.cfg.BackoffMax)
			l.rest(ctx, backoff)
			continue
		}
		backoff = 0
		l.pause(ctx)
	}
}

// rest waits after a failure. What is triggered meanwhile may have nothing to do
// with it, and waits for the shortest pause only.
func (l *Loop) rest(ctx context.Context, backoff time.Duration) {
	sleep(ctx, backoffMin)
	rest := time.NewTimer(backoff - backoffMin)
	defer rest.Stop()
	select {
	case <-l.trigger:
	case <-rest.C:
	case <-ctx.Done():
	}
}

// pause waits for a trigger, and then for its companions, or for the resync.
func (l *Loop) pause(ctx context.Context) {
	resync := time.NewTimer(l.cfg.Resync)
	defer resync.Stop()
	select {
	case <-l.trigger:
		sleep(ctx, l.cfg.Quiet)
	case <-resync.C:
	case <-ctx.Done():
	}
}

func (l *Loop) step(ctx context.Context) error {
	select { // this step covers whatever was triggered until now
	case <-l.trigger:
	default:
	}
	l.mu.Lock()
	generation, since := l.wanted, l.since
	l.since = time.Time{} // a trigger from here on is for the next step
	l.mu.Unlock()

	began := time.Now()
	err := l.cfg.Step(ctx)

	if err == nil && !since.IsZero() && l.cfg.Settled != nil {
		l.cfg.Settled(time.Since(since))
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Steps++
	l.status.Took = time.Since(began)
	l.status.Err = ""
	if err != nil {
		l.status.Failures++
		l.status.Err = err.Error()
		if !since.IsZero() {
			l.since = since
		}
	} else {
		l.done = generation
	}
	l.tried, l.failed = generation, err
	close(l.moved)
	l.moved = make(chan struct{})
	return err
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
