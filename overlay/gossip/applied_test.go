package gossip

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"shoal/overlay/endpoint"
)

func at(seq uint64) endpoint.Position { return endpoint.Position{Epoch: 1, Seq: seq} }

func TestProgressCovers(t *testing.T) {
	behind := progress{at: at(5), held: map[string]endpoint.Position{"x": at(3)}}
	own := progress{at: at(5), held: map[string]endpoint.Position{Own: at(3)}}
	for _, tt := range []struct {
		name     string
		of       progress
		at       uint64
		networks []string
		want     bool
	}{
		{"another network", behind, 5, []string{"y"}, true},
		{"no network", behind, 5, []string{}, true},
		{"the network that is behind", behind, 4, []string{"y", "x"}, false},
		{"what it has", behind, 3, []string{"x"}, true},
		{"all networks", behind, 4, nil, false},
		{"not there at all", behind, 6, []string{"y"}, false},
		{"the node's own namespace", own, 4, []string{"y"}, false},
		{"nothing is behind", progress{at: at(5)}, 5, nil, true},
	} {
		if got := tt.of.covers(at(tt.at), tt.networks); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// TestWaitForWhatIsHeldBack: one request is enough to know that a node holds back, and
// who waits for another network is not kept.
func TestWaitForWhatIsHeldBack(t *testing.T) {
	var w reach
	asked := 0
	ask := func(context.Context, endpoint.Position) (progress, error) {
		asked++
		return progress{at: at(5), held: map[string]endpoint.Position{"x": at(3)}}, nil
	}
	if err := w.wait(t.Context(), at(4), []string{"x"}, ask); !errors.Is(err, errNotApplied) || asked != 1 {
		t.Errorf("%v after %d requests", err, asked)
	}
	if err := w.wait(t.Context(), at(5), []string{"y"}, ask); err != nil || asked != 1 {
		t.Errorf("another network: %v after %d requests", err, asked)
	}
}

// TestConfirmDespiteAPlaceInTrouble: a node that holds one network back confirms what
// concerns others, and the rest once it does not any more.
func TestConfirmDespiteAPlaceInTrouble(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.formed()
	one, two := c.nodes[0], c.nodes[1]
	first := one.write("t", "web")
	for _, n := range c.nodes {
		n.apply(t, first)
	}
	second := one.write("t", "db") // on net1
	one.apply(t, second)
	two.applyBut(t, second, "net1", "net9")
	confirm := func(r endpoint.Record, patience time.Duration) []string {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		missing, _ := one.Confirm(ctx, r)
		return missing
	}
	elsewhere := second
	elsewhere.Value.Attachments = []endpoint.Attachment{{NetworkID: "net2"}}
	if missing := confirm(elsewhere, 5*time.Second); len(missing) > 0 {
		t.Errorf("a network that is in order is not confirmed by %q", missing)
	}
	if missing := confirm(first, 5*time.Second); len(missing) > 0 {
		t.Errorf("what was applied before the trouble is not confirmed by %q", missing)
	}
	whole := endpoint.Record{Owner: second.Owner, Epoch: second.Epoch, Seq: second.Seq, Deleted: true}
	for _, r := range []endpoint.Record{second, whole} {
		if missing := confirm(r, 600*time.Millisecond); !slices.Equal(missing, []string{"node1"}) {
			t.Errorf("%v is confirmed by all but %q", r, missing)
		}
	}
	two.applyBut(t, second, "net1") // another step in trouble is no news for the network
	if missing := confirm(second, 600*time.Millisecond); !slices.Equal(missing, []string{"node1"}) {
		t.Errorf("a second step in trouble: confirmed by all but %q", missing)
	}
	two.apply(t, second)
	if missing := confirm(second, 5*time.Second); len(missing) > 0 {
		t.Errorf("after the trouble %q do not confirm", missing)
	}
}

func (n *node) applyBut(t *testing.T, r endpoint.Record, held ...string) {
	eventually(t, 5*time.Second, "record arrives", func() bool { return !n.table.View().At(r.Owner).Before(r.At()) })
	n.SetApplied(n.table.View(), held...)
}

// TestProgressWithoutTroubleIsAPosition: what older nodes read stays as it was.
func TestProgressWithoutTroubleIsAPosition(t *testing.T) {
	if got := (progress{at: at(7)}).encode(); !bytes.Equal(got, appendPosition(nil, at(7))) {
		t.Errorf("%x", got)
	}
}
