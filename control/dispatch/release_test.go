package dispatch

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// confirm has a node report its level, which also makes it ready.
func (f *fixture) confirm(t *testing.T, nodeID string, level uint64) {
	t.Helper()
	if err := f.Report(t.Context(), nodeID, api.Report{Node: described(), Level: level}); err != nil {
		t.Fatal(err)
	}
}

// gone makes a task end, whose address is then retired, and returns when.
func (f *fixture) gone(id string) uint64 {
	ended := &api.Task{}
	ended.ID, ended.Status.State = id, swarm.TaskStateShutdown
	f.must(api.Status(ended))
	return f.store.View().Index()
}

func TestReleaseWaitsForEveryLivingNode(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0, "net1")), api.Create(aTask("t1", "s", "n1", "net1")), api.Create(aTask("t2", "s", "n2", "net1")))
	f.lead(t)
	r, _ := f.watch(t, "n1")
	f.confirm(t, "n1", 0)
	f.confirm(t, "n2", 0)
	at := f.gone("t1")
	waitFor(t, func() bool { return r.confirm() >= at })
	f.confirm(t, "n1", at)
	f.confirm(t, "n2", at-1)
	if n := len(f.store.View().Retired()); n != 1 {
		t.Fatalf("%d retired although n2 has not confirmed", n)
	}
	asked := r.count()
	f.confirm(t, "n2", at)
	waitFor(t, func() bool { return len(f.store.View().Retired()) == 0 })
	if r.count() != asked {
		t.Errorf("the node was asked %d times more", r.count()-asked)
	}
}

func TestReleaseGoesOnWithoutDeadAndSilentNodes(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0, "net1")), api.Create(aTask("t1", "s", "n1", "net1")), api.Create(aTask("t2", "s", "n2", "net1")))
	f.lead(t)
	f.confirm(t, "n1", 0)
	f.confirm(t, "n2", 1<<40) // of a state that was lost: it does not count
	first := f.gone("t1")
	f.confirm(t, "n1", first)
	if len(f.store.View().Retired()) != 1 {
		t.Fatal("a level beyond the state was believed")
	}
	dead := f.store.View().Node("n2").Copy()
	dead.Status.State = swarm.NodeStateDown
	f.must(api.Status(dead))
	waitFor(t, func() bool { return len(f.store.View().Retired()) == 0 })
	second := f.gone("t2")
	f.confirm(t, "n2", 0) // it is back, and what it said before is forgotten
	f.confirm(t, "n1", second)
	if len(f.store.View().Retired()) != 1 {
		t.Fatal("a node that is back does not count")
	}
	f.advance(releaseTimeout)
	f.must(api.Status(dead)) // any change of a node makes the dispatcher look
	waitFor(t, func() bool { return len(f.store.View().Retired()) == 0 })
}

// TestNewLeaderAsksAgain: what is retired survives the leader that waited for it.
func TestNewLeaderAsksAgain(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0, "net1")), api.Create(aTask("t1", "s", "n1", "net1")))
	stop := f.lead(t)
	f.confirm(t, "n1", 0)
	f.confirm(t, "n2", 0)
	at := f.gone("t1")
	stop()
	f.lead(t)
	r, _ := f.watch(t, "n1")
	waitFor(t, func() bool { return r.confirm() >= at })
	f.confirm(t, "n1", at)
	f.confirm(t, "n2", at)
	waitFor(t, func() bool { return len(f.store.View().Retired()) == 0 })
}

// TestDrainingTaskKeepsItsRemovedNetwork: a node keeps hearing of a network that
// was removed while a task there is about to stop.
func TestDrainingTaskKeepsItsRemovedNetwork(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0, "net1")), api.Create(aTask("t1", "s", "n1", "net1")))
	f.lead(t)
	r, _ := f.watch(t, "n1")
	stopping := f.store.View().Task("t1").Copy()
	stopping.DesiredState = swarm.TaskStateShutdown
	f.must(api.Delete(aService("s", 0)), api.UpdateAnyway(stopping), api.Delete(aNetwork("net1", 0, false)))
	waitFor(t, func() bool { n, ok := r.get(api.KindNetwork, "net1").(*api.Network); return ok && n.Removed })
	f.gone("t1")
	waitFor(t, func() bool { return r.get(api.KindNetwork, "net1") == nil && r.get(api.KindTask, "t1") == nil })
}

// TestReleaseDespiteANetworkInTrouble: a node that is in order but for one network keeps
// only what was retired from that.
func TestReleaseDespiteANetworkInTrouble(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0, "net1")), api.Create(aTask("t1", "s", "n1", "net1")), api.Create(aTask("t2", "s", "n2", "net1")))
	f.lead(t)
	f.confirm(t, "n1", 0)
	f.confirm(t, "n2", 0)
	at := f.gone("t1")
	f.confirm(t, "n1", at)
	but := func(network string) {
		t.Helper()
		if err := f.Report(t.Context(), "n2", api.Report{Node: described(), Level: at - 1, Beyond: &api.Beyond{Level: at, But: []string{network}}}); err != nil {
			t.Fatal(err)
		}
	}
	but("net1")
	time.Sleep(5 * releasePace)
	if n := len(f.store.View().Retired()); n != 1 {
		t.Fatalf("%d retired although n2 holds the network back", n)
	}
	but("net9")
	waitFor(t, func() bool { return len(f.store.View().Retired()) == 0 })
}

func TestLevelAt(t *testing.T) {
	l := level{3, &api.Beyond{Level: 7, But: []string{"net1", "net-abcdefghijkl"}}}
	for _, tt := range []struct {
		networks []string
		want     uint64
	}{
		{[]string{"net2"}, 7}, {[]string{"net2", "net1"}, 3}, {nil, 7}, {[]string{"abcdefghijklmnop"}, 3},
	} {
		if got := l.at(tt.networks); got != tt.want {
			t.Errorf("%q: %d", tt.networks, got)
		}
	}
	if got := (level{all: 3}).at([]string{"net1"}); got != 3 {
		t.Errorf("without trouble: %d", got)
	}
}
