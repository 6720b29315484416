package leader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"shoal/control/api"
	"shoal/control/store"
)

// Bounds of the pause between two full looks after an error.
const (
	minPause = 5 * time.Millisecond
	maxPause = 2 * time.Second
)

// backoff judges what ended a session and paces the next one.
type backoff struct {
	clock    Clock
	refusals int
	pause    time.Duration
}

func (b *backoff) reset() { b.refusals, b.pause = 0, 0 }

// judge returns nil when starting over helps, else the error that ends Run.
func (b *backoff) judge(err error) error {
	if errors.Is(err, errResync) || errors.Is(err, store.ErrSlow) || errors.Is(err, store.ErrReplaced) {
		return nil
	}
	var refusal *api.Error
	if !errors.As(err, &refusal) {
		return err
	}
	if refusal.Kind == api.Unavailable {
		return nil
	}
	if b.refusals++; b.refusals > maxRefusals {
		return fmt.Errorf("the store refused %d plans in a row: %w", b.refusals, err)
	}
	return nil
}

func (b *backoff) wait(ctx context.Context) error {
	b.pause = min(max(2*b.pause, minPause), maxPause)
	done, stop := b.clock.Timer(b.pause)
	defer stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// system is the machine's clock.
type system struct{}

func (system) Now() time.Time { return time.Now() }

func (system) Timer(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}
