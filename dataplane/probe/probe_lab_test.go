//go:build lab

package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"shoal/bench/need"
	"shoal/dataplane/lb"
	"shoal/overlay/netns"
)

// pair makes two namespaces, 10.99.0.1 and 10.99.0.2, joined by a cable.
func pair(t *testing.T) (a, b string) {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Feature(t, "netns", errors.New("needs root"))
	}
	dir := t.TempDir()
	a, b = filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, path := range []string{a, b} {
		if err := netns.Create(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netns.Delete(path) })
	}
	ip := func(path string, args ...string) {
		if out, err := exec.Command("nsenter", append([]string{"--net=" + path, "ip"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	ip(a, "link", "add", "va", "type", "veth", "peer", "name", "vb", "netns", b)
	for i, path := range []string{a, b} {
		ip(path, "link", "set", "lo", "up")
		ip(path, "addr", "add", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", "v"+filepath.Base(path))
		ip(path, "link", "set", "v"+filepath.Base(path), "up")
	}
	return a, b
}

// TestLabFollow: each kind of packet is seen where it leaves and where it arrives,
// also when the other side refuses, and nothing else is.
func TestLabFollow(t *testing.T) {
	a, b := pair(t)
	l, err := netns.Listen(t.Context(), b, "tcp4", "10.99.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := netns.ListenPacket(t.Context(), b, "udp4", "10.99.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go func() {
		buffer := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = u.WriteTo([]byte("heard"), from)
		}
	}()
	for i, row := range []struct {
		p       lb.Protocol
		to      string
		outcome Outcome
		seen    string
	}{
		{lb.TCP, "10.99.0.2:80", Connected, "a va out, b vb in"}, {lb.TCP, "10.99.0.2:81", Refused, "a va out, b vb in"},
		{lb.UDP, "10.99.0.2:53", Answered, "a va out, b vb in"}, {lb.UDP, "10.99.0.2:54", Refused, "a va out, b vb in"},
		{Ping, "10.99.0.2:0", Answered, "a va out, b vb in"}, {lb.TCP, "10.98.0.1:80", NoRoute, ""},
	} {
		mark := 0x5eed0000 + uint32(i)
		var mu sync.Mutex
		var seen []string
		ctx, cancel := context.WithCancel(t.Context())
		wait, err := Watch(ctx, []string{a, b}, row.p, mark, 4789, func(s Sighting) {
			mu.Lock()
			defer mu.Unlock()
			way := "in"
			if s.Out {
				way = "out"
			}
			if time.Since(s.At).Abs() > time.Minute {
				t.Errorf("seen at %s", s.At)
			}
			seen = append(seen, filepath.Base(s.Namespace)+" "+s.Link+" "+way)
		})
		if err != nil {
			t.Fatal(err)
		}
		if conn, err := netns.Dial(t.Context(), a, "tcp4", "10.99.0.2:80"); err == nil {
			conn.Close() // somebody else's
		}
		sendCtx, sent := context.WithTimeout(ctx, 5*time.Second)
		got, err := Send(sendCtx, a, row.p, netip.MustParseAddrPort(row.to), mark)
		sent()
		if err != nil || got != row.outcome {
			t.Errorf("%s to %s: %q %v, want %q", row.p, row.to, got, err, row.outcome)
		}
		for deadline := time.Now().Add(2 * time.Second); row.seen != "" && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			n := len(seen)
			mu.Unlock()
			if n == 2 {
				break
			}
		}
		cancel()
		wait()
		slices.Sort(seen)
		if text := strings.Join(slices.Compact(seen), ", "); text != row.seen {
			t.Errorf("%s to %s is seen at %q, want %q", row.p, row.to, text, row.seen)
		}
	}
}
