package gossip

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"shoal/overlay/endpoint"
)

func TestGapPlan(t *testing.T) {
	start := time.Unix(1000, 0)
	p := gapPlan{first: 100 * time.Millisecond, most: 300 * time.Millisecond}
	for i, step := range []struct {
		atMS   int
		behind []string
		urgent string
		ask    []string
		sleep  time.Duration
	}{
		{atMS: 0, behind: []string{"a"}, sleep: 100 * time.Millisecond},
		{atMS: 50, behind: []string{"a", "b"}, urgent: "b", ask: []string{"b"}, sleep: 50 * time.Millisecond},
		{atMS: 100, behind: []string{"a"}, ask: []string{"a"}, sleep: 100 * time.Millisecond},
		{atMS: 200, behind: []string{"a"}, ask: []string{"a"}, sleep: 200 * time.Millisecond},
		{atMS: 400, behind: []string{"a"}, ask: []string{"a"}, sleep: 300 * time.Millisecond},
		{atMS: 410, behind: []string{"a", "c"}, sleep: 100 * time.Millisecond},
		{atMS: 420, behind: []string{"a", "c"}, urgent: "a", ask: []string{"a"}, sleep: 90 * time.Millisecond},
		{atMS: 430, behind: nil},
		{atMS: 440, behind: []string{"a"}, sleep: 100 * time.Millisecond},
	} {
		now := start.Add(time.Duration(step.atMS) * time.Millisecond)
		ask, sleep := p.next(now, step.behind, map[string]bool{step.urgent: true})
		if !slices.Equal(ask, step.ask) || sleep != step.sleep {
			t.Errorf("step %d: ask %v in %s, want %v in %s", i, ask, sleep, step.ask, step.sleep)
		}
	}
}

func TestSetKeysOrders(t *testing.T) {
	key := func(n byte) []byte { return bytes.Repeat([]byte{n}, keyBytes) }
	ring, err := memberlist.NewKeyring([][]byte{key(1), key(2), key(3)}, key(1))
	must(t, err)
	g := &Gossip{keyring: ring}
	for _, want := range [][][]byte{{key(3)}, {key(3), key(4)}, {key(4), key(3)}, {key(5), key(3)}, {key(5), key(6), key(7)}} {
		must(t, g.SetKeys(want))
		got := ring.GetKeys()
		if !bytes.Equal(got[0], want[0]) || len(got) != len(want) {
			t.Errorf("set %d, got %d", firstBytes(want), firstBytes(got))
		}
		for _, k := range want {
			if !slices.ContainsFunc(got, func(h []byte) bool { return bytes.Equal(h, k) }) {
				t.Errorf("set %d, got %d", firstBytes(want), firstBytes(got))
			}
		}
	}
	if err := g.SetKeys(nil); err == nil {
		t.Error("no keys were accepted")
	}
}

func firstBytes(keys [][]byte) (out []byte) {
	for _, k := range keys {
		out = append(out, k[0])
	}
	return out
}

func TestWaitersShareOneRequest(t *testing.T) {
	var w reach
	var mu sync.Mutex
	asked, running, most := 0, 0, 0
	ask := func(ctx context.Context, at endpoint.Position) (progress, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		running++
		most = max(most, running)
		running--
		return progress{at: endpoint.Position{Epoch: 1, Seq: at.Seq + 4}}, nil
	}
	var wg sync.WaitGroup
	for seq := range uint64(50) {
		wg.Go(func() {
			if err := w.wait(t.Context(), endpoint.Position{Epoch: 1, Seq: seq}, nil, ask); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if asked > 15 || most > 1 {
		t.Errorf("%d requests, %d at once", asked, most)
	}
	boom := errors.New("boom")
	err := w.wait(t.Context(), endpoint.Position{Epoch: 9, Seq: 1}, nil, func(context.Context, endpoint.Position) (progress, error) {
		return progress{}, boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
}

func TestGarbageOnAPullStreamEndsIt(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.formed()
	for _, garbage := range [][]byte{
		{0xff, 0xff, 0xff, 0xff, 1}, {0, 0, 0, 1, 99}, {0, 0, 0, 2, kindDigest, 7}, {0, 0, 0, 2, kindPush, 9},
		{0, 0, 0, 1, kindApplied}, {0, 0, 0, 3, kindSum, 1, 2},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		conn, err := c.nodes[0].net.dial(ctx, ProtocolPull, "node1", c.nodes[1].Addr().String())
		must(t, err)
		_, err = conn.Write(garbage)
		must(t, err)
		must(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		if n, err := conn.Read(make([]byte, 1)); err == nil || n > 0 || isTimeout(err) {
			t.Errorf("garbage %x was answered: %v", garbage, err)
		}
		_ = conn.Close()
		cancel()
	}
	must(t, c.nodes[0].syncWith(t.Context(), "node1"))
	if s := c.nodes[1].Stats(); s.Corrupt < 6 {
		t.Errorf("%d corrupt messages counted", s.Corrupt)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if conn, err := c.nodes[0].net.dial(ctx, ProtocolPull, "someone-else", c.nodes[1].Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("node1 was taken for someone else")
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestABrokenIdleStreamIsReplaced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.formed()
	n := c.nodes[0]
	must(t, n.syncWith(t.Context(), "node1"))
	n.peers.mu.Lock()
	for _, conn := range n.peers.idle {
		_ = conn.Close()
	}
	n.peers.mu.Unlock()
	must(t, n.syncWith(t.Context(), "node1"))
	s := n.Stats()
	if s.Peers["node1"].At.IsZero() || s.Peers["node1"].Error != "" || len(s.Members) != 2 {
		t.Errorf("stats %+v", s)
	}
}
