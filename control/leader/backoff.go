package leader

import (
	"context"
	"errors"
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

// reset is called when all that was planned in a round is committed.
func (b *backoff) reset() { b.refusals, b.pause = 0, 0 }

// careful says whether the store has refused too many plans in a row.
func (b *backoff) careful() bool { return b.refusals >= maxRefusals }

// judge returns nil when starting over helps, else the error that ends Run.
func (b *backoff) judge(err error) error {
	lost := errors.Is(err, errResync) || errors.Is(err, store.ErrSlow) || errors.Is(err, store.ErrReplaced)
	switch {
	case lost, unavailable(err):
		return nil
	case refusal(err):
		b.refusals++
		return nil
	}
	return err
}

// refusal says whether err is the store's answer to a plan.
func refusal(err error) bool {
	var answer *api.Error
	return errors.As(err, &answer) && answer.Kind != api.Unavailable
}

func unavailable(err error) bool {
	var answer *api.Error
	return errors.As(err, &answer) && answer.Kind == api.Unavailable
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
