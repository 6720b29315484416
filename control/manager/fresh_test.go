package manager

import (
	"fmt"
	"testing"
	"time"
)

// TestFreshKnowsWhatOthersAcknowledged: right after any manager acknowledged a
// write, each of the others holds it once it has asked.
func TestFreshKnowsWhatOthersAcknowledged(t *testing.T) {
	ids := []string{"m1", "m2", "m3"}
	g := newGroup(t, ids...)
	g.leader(ids...)
	for i := range 12 {
		name, writer := fmt.Sprint("written-", i), ids[i%3]
		if err := g.all[writer].Propose(g.ctx(10*time.Second), aNetwork(name)); err != nil {
			t.Fatal(err)
		}
		for _, reader := range others(ids, writer) {
			g.all[reader].Fresh(g.ctx(10 * time.Second))
			if !g.all[reader].knows(name) {
				t.Errorf("%s asked and does not know what %s acknowledged", reader, writer)
			}
		}
	}
}
