package gossip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// roll is what one node was told of which nodes there are.
type roll struct {
	mu    sync.Mutex
	nodes map[string]bool
}

func newRoll(nodes ...string) *roll {
	r := &roll{nodes: map[string]bool{}}
	for _, id := range nodes {
		r.set(id, true)
	}
	return r
}

func (r *roll) set(id string, there bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes[id] = there
}

func (r *roll) admit(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.nodes[id] {
		return fmt.Errorf("%s was removed, or is not told of yet", id)
	}
	return nil
}

// enrol starts a node that admits whom the roll has, and joins it to the first one.
func (c *cluster) enrol(id string, r *roll) *node {
	cfg := c.config(id, netip.AddrFrom4([4]byte{127, 0, 77, byte(len(c.nodes) + 1)}), 1, 0)
	cfg.Admit = r.admit
	return c.start(cfg)
}

// TestARemovedNodeIsOut: a node that goes on running after its removal, with its
// certificate and the keys, is no member any more, gets nothing and brings nothing,
// while the others agree as before.
func TestARemovedNodeIsOut(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, ca: newTestCA(t), fabric: newFabric()}
	rolls := []*roll{newRoll("a", "b", "out"), newRoll("a", "b", "out"), newRoll("a", "b", "out")}
	for i, id := range []string{"a", "b", "out"} {
		c.enrol(id, rolls[i])
	}
	c.formed()
	a, b, out := c.nodes[0], c.nodes[1], c.nodes[2]
	out.write("t", "web")
	eventually(t, 5*time.Second, "tables agree", func() bool { return agree(c.nodes) })
	must(t, out.syncWith(t.Context(), "a")) // leaves a stream open that was made before the removal

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for i, n := range c.nodes[:2] {
		rolls[i].set("out", false)
		must(t, n.Forget(ctx, "out"))
	}
	for _, n := range c.nodes[:2] {
		if n.sees("out") != "" {
			t.Errorf("%s still has it as a member", n.cfg.NodeID)
		}
		if _, err := n.Dial(ctx, "out", ProtocolPull); err == nil || !strings.Contains(err.Error(), "node out is refused") {
			t.Errorf("%s connects to it: %v", n.cfg.NodeID, err)
		}
		eventually(t, 5*time.Second, "nobody waits for it", func() bool { _, ok := n.others()["out"]; return !ok })
	}
	for _, asked := range []string{"a", "b"} {
		if err := out.syncWith(ctx, asked); err == nil || !strings.Contains(err.Error(), "out was removed") {
			t.Errorf("%s compares tables with it: %v", asked, err)
		}
	}
	if _, err := out.serf.Join([]string{a.Addr().String()}, true); err == nil {
		t.Error("it joins again")
	}
	eventually(t, 30*time.Second, "it hears nobody any more", func() bool { return out.sees("a") == Failed && out.sees("b") == Failed })
	a.write("after", "web")
	out.write("t2", "web")
	eventually(t, 5*time.Second, "the others agree", func() bool { return agree(c.nodes[:2]) && len(b.table.View().All()) == 1 })
	if _, ok := out.table.View().Record("a", "after"); ok {
		t.Error("it was told of what came after it")
	}
	for _, n := range c.nodes[:2] {
		for _, owner := range n.table.Owners() {
			if owner == "out" {
				t.Errorf("%s has records of it", n.cfg.NodeID)
			}
		}
	}
}

// TestANodeNotToldOfYetIsOnlyLate: while one node has not been told of a new one, the
// two keep apart, but nobody else does; once it has been told they meet at once.
func TestANodeNotToldOfYetIsOnlyLate(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, ca: newTestCA(t), fabric: newFabric()}
	behind := newRoll("a", "behind")
	c.enrol("a", newRoll("a", "behind", "new"))
	c.enrol("behind", behind)
	c.formed()
	fresh := c.enrol("new", newRoll("a", "behind", "new"))
	eventually(t, 10*time.Second, "the others meet the new one", func() bool { return c.nodes[0].sees("new") == Alive && fresh.sees("a") == Alive })
	fresh.write("t", "web")
	time.Sleep(2 * time.Second) // several probes, and suspicions if there were any
	if s := c.nodes[1].sees("new"); s != "" {
		t.Errorf("the node that is behind has it as a member: %s", s)
	}
	if a, n := c.nodes[0].sees("behind"), fresh.sees("behind"); a != Alive || n != Alive {
		t.Errorf("the node that is behind is %s and %s to the others", a, n)
	}
	behind.set("new", true)
	c.nodes[1].Join(nil)
	took := eventually(t, 2*time.Second, "the two meet", func() bool { return c.nodes[1].sees("new") == Alive })
	t.Logf("met %s after the node was told", took)
	c.formed()
	eventually(t, 5*time.Second, "tables agree", func() bool { return agree(c.nodes) })
}

// TestNobodyIsMetInIgnorance: a node that has been told of no nodes yet meets none, and
// all of them once it has.
func TestNobodyIsMetInIgnorance(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, ca: newTestCA(t), fabric: newFabric()}
	all := newRoll("a", "b", "new")
	c.enrol("a", all)
	c.enrol("b", all)
	c.formed()
	own := newRoll()
	fresh := c.enrol("new", own)
	eventually(t, 10*time.Second, "joins fail", func() bool { return fresh.Stats().JoinsFailed > 0 })
	if n := len(fresh.Members()); n != 1 {
		t.Errorf("%d members in ignorance", n)
	}
	own.set("a", true)
	own.set("b", true)
	fresh.Join(nil)
	took := eventually(t, 3*time.Second, "all meet", func() bool { return fresh.sees("a") == Alive && fresh.sees("b") == Alive })
	t.Logf("met %s after the node was told", took)
	c.formed()
}

// TestNothingOfARemovedNodeIsTakenIn: neither what others tell of it later nor what Serf
// tells newcomers of events that are past.
func TestNothingOfARemovedNodeIsTakenIn(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, ca: newTestCA(t), fabric: newFabric()}
	everybody := newRoll("a", "out", "new")
	a, out := c.enrol("a", everybody), c.enrol("out", newRoll("a", "out"))
	c.formed()
	for i := range 20 {
		out.write("t", fmt.Sprint("web", i))
	}
	eventually(t, 5*time.Second, "tables agree", func() bool { return agree(c.nodes) })
	must(t, out.Shutdown())
	fresh := c.enrol("new", newRoll("a", "new"))
	eventually(t, 10*time.Second, "the new one is met", func() bool { return fresh.sees("a") == Alive && a.sees("new") == Alive })
	a.write("t", "web")
	// Who is seen as alive is among those to ask a moment later.
	eventually(t, 5*time.Second, "both ask", func() bool {
		return a.syncWith(t.Context(), "new") == nil && fresh.syncWith(t.Context(), "a") == nil
	})
	eventually(t, 5*time.Second, "all of it has come", func() bool { _, ok := fresh.table.View().Record("a", "t"); return ok })
	if owners, behind := fresh.table.Owners(), fresh.table.Behind(); len(owners) != 2 || len(behind) != 0 {
		t.Errorf("it knows of %v, and waits for %v", owners, behind)
	}
}

func TestRefusedNodesThatAreNotedAreBounded(t *testing.T) {
	d := newDoor("self", newRoll("a").admit)
	for i := range lateMax + 10 {
		if d.NotifyAlive(&memberlist.Node{Name: fmt.Sprint("n", i), Addr: net.IPv4zero}) == nil {
			t.Fatal("a stranger is let in")
		}
	}
	if len(d.late) != lateMax {
		t.Errorf("%d are noted", len(d.late))
	}
	if err := d.NotifyAlive(&memberlist.Node{Name: "self"}); err != nil {
		t.Errorf("the own node: %v", err)
	}
	for i := range goneMax + 1 {
		d.remove(fmt.Sprint("n", i))
	}
	if len(d.gone) > goneMax || len(d.late) > 0 && d.isGone("n0") {
		t.Errorf("%d removed nodes are noted", len(d.gone))
	}
	if err := newDoor("self", nil).refusal("anybody"); err != nil {
		t.Errorf("without a say: %v", err)
	}
}
