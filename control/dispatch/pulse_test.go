package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// TestUnheardNodes: after a change of leaders a silent node is down six heartbeats
// after the first look, or two after half of the nodes found the new leader.
func TestUnheardNodes(t *testing.T) {
	nodes := func(n, down int) (out []*api.Node) {
		for i := range n {
			node := &api.Node{}
			node.ID, node.Status.State = fmt.Sprint("n", i), swarm.NodeStateReady
			if i >= n-down {
				node.Status.State = swarm.NodeStateDown
			}
			out = append(out, node)
		}
		return out
	}
	for _, tt := range []struct {
		name          string
		nodes, down   int
		heard         int // nodes that call, a second after the term began and from then on
		after, before time.Duration
	}{
		{"nobody calls", 3, 0, 0, 6 * time.Second, 6500 * time.Millisecond},
		{"one of three calls", 3, 0, 1, 6 * time.Second, 6500 * time.Millisecond},
		{"two of three call", 3, 0, 2, 3 * time.Second, 3500 * time.Millisecond},
		{"those that were down do not count", 6, 3, 2, 3 * time.Second, 3500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, all, began := newPulse(), nodes(tt.nodes, tt.down), time.Unix(1000, 0)
			for at := time.Duration(0); at < 20*time.Second; at += 250 * time.Millisecond {
				now := began.Add(at)
				for i := 0; i < tt.heard && at >= time.Second; i++ {
					p.beat(all[i].ID, now, time.Second)
				}
				gone := p.expired(all, now, time.Second)
				if len(gone) == 0 {
					continue
				}
				if want := tt.nodes - tt.down - tt.heard; len(gone) != want || at < tt.after || at > tt.before {
					t.Errorf("%d nodes were down after %v, want %d between %v and %v", len(gone), at, want, tt.after, tt.before)
				}
				return
			}
			t.Error("the silent nodes were never down")
		})
	}
}
