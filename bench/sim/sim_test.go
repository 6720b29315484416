package sim

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// seed draws one, or takes the one to be replayed.
func seed(t *testing.T) uint64 {
	if text := os.Getenv("SHOAL_SIM_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SHOAL_SIM_SEED=%s: %v", text, err)
		}
		return n
	}
	return rand.Uint64N(1 << 32)
}

// base gives every process addresses of its own.
func base() netip.Prefix {
	pid := os.Getpid()
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(64 + pid>>8%128), byte(pid), 0}), 24)
}

// leaks complains about goroutines that do not end. A probe of memberlist's may
// be under way for a few probe intervals after the shutdown.
func leaks(t *testing.T, known goleak.Option) {
	t.Helper()
	var err error
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		if err = goleak.Find(known); err == nil {
			return
		}
	}
	t.Error(err)
}

// TestFaults lets a cluster live through one fault after another.
func TestFaults(t *testing.T) {
	managers, workers, rounds := 3, 9, 0
	if !testing.Short() {
		managers, workers, rounds = 5, 20, 30
	}
	seed := seed(t)
	t.Logf("SHOAL_SIM_SEED=%d", seed)
	defer leaks(t, goleak.IgnoreCurrent())

	began := time.Now()
	logf := func(format string, args ...any) {
		t.Logf("%7.2fs %s", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	level := slog.LevelWarn
	if os.Getenv("SHOAL_SIM_LOG") == "" {
		level = slog.LevelError + 1
	}
	sink := io.Writer(os.Stderr)
	c, err := NewCluster(t.Context(), Config{
		Managers: managers, Workers: workers, Dir: t.TempDir(), Base: base(),
		Election: 2 * time.Second, Heartbeat: time.Second, GossipScale: 3, Seed: seed,
		Fail:   func(format string, args ...any) { t.Errorf(format, args...) },
		Logger: slog.New(slog.NewTextHandler(sink, &slog.HandlerOptions{Level: level})),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Errorf("shut down: %v", err)
		}
	}()
	logf("%d hosts are a cluster", managers+workers)
	s := NewScript(c, seed, logf)
	if err := s.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	faults := Faults
	for range rounds {
		faults = append(faults, Faults[s.rng.IntN(len(Faults))])
	}
	for _, f := range faults {
		if err := s.Round(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatal("stopped at the first broken promise")
		}
	}
}
