package reconcile

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func run(t *testing.T, l *Loop) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; goleak.VerifyNone(t) })
	return ctx
}

func TestWaitCoversTheTrigger(t *testing.T) {
	var wish, world atomic.Int64
	l := New(Config{Name: "count", Step: func(context.Context) error { world.Store(wish.Load()); return nil }})
	ctx := run(t, l)
	for i := int64(1); i <= 200; i++ {
		wish.Store(i)
		if err := l.Wait(ctx, l.Trigger()); err != nil {
			t.Fatal(err)
		}
		if world.Load() != i {
			t.Fatalf("waited for %d, the world has %d", i, world.Load())
		}
	}
}

func TestTriggersCoalesce(t *testing.T) {
	var steps atomic.Int64
	l := New(Config{Name: "count", Quiet: 20 * time.Millisecond, Step: func(context.Context) error { steps.Add(1); return nil }})
	ctx := run(t, l)
	var last uint64
	for range 1000 {
		last = l.Trigger()
	}
	if err := l.Wait(ctx, last); err != nil {
		t.Fatal(err)
	}
	if n := steps.Load(); n > 100 {
		t.Fatalf("1000 triggers at once took %d steps", n)
	}
}

func TestFailureBacksOffAndHeals(t *testing.T) {
	var tries atomic.Int64
	l := New(Config{Name: "kernel", Step: func(context.Context) error {
		if tries.Add(1) < 4 {
			return errors.New("device busy")
		}
		return nil
	}})
	ctx := run(t, l)
	if err := l.Wait(ctx, l.Trigger()); err != nil {
		t.Fatal(err)
	}
	if s := l.Status(); s.Failures != 3 || s.Err != "" {
		t.Fatalf("status after healing: %+v", s)
	}
}

func TestWaitSaysWhatFailed(t *testing.T) {
	l := New(Config{Name: "kernel", Step: func(context.Context) error { return errors.New("device busy") }})
	run(t, l)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	err := l.Wait(ctx, l.Trigger())
	if err == nil || !strings.Contains(err.Error(), "kernel: device busy") {
		t.Fatalf("got %v", err)
	}
}

func TestResyncWithoutTrigger(t *testing.T) {
	steps := make(chan struct{}, 100)
	l := New(Config{Name: "idle", Resync: 5 * time.Millisecond, Step: func(context.Context) error { steps <- struct{}{}; return nil }})
	ctx := run(t, l)
	for range 5 {
		select {
		case <-steps:
		case <-ctx.Done():
			t.Fatal("no resync")
		}
	}
}

// TestSettledCountsFromTheFirstTrigger: a change that fails at first took as long
// as all tries together; a resync settles nothing.
func TestSettledCountsFromTheFirstTrigger(t *testing.T) {
	var tries atomic.Int64
	settled := make(chan time.Duration, 100)
	l := New(Config{Name: "kernel", Resync: 5 * time.Millisecond, Settled: func(d time.Duration) { settled <- d }, Step: func(context.Context) error {
		if tries.Add(1) < 3 {
			return errors.New("device busy")
		}
		return nil
	}})
	generation := l.Trigger()
	ctx := run(t, l)
	if err := l.Wait(ctx, generation); err != nil {
		t.Fatal(err)
	}
	if took := <-settled; took < 2*backoffMin {
		t.Errorf("two back-offs, yet settled after %s", took)
	}
	for steps := l.Status().Steps; l.Status().Steps < steps+3; {
		time.Sleep(time.Millisecond)
	}
	if len(settled) > 0 {
		t.Errorf("a resync settles what nobody asked for, %s", <-settled)
	}
}
