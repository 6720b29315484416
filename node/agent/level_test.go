package agent_test

import (
	"testing"

	"shoal/control/api"
)

// ask asks the node to confirm a revision that changes nothing else.
func (n *node) ask() uint64 {
	n.t.Helper()
	n.revision++
	if err := n.agent.Apply(api.Assignment{Revision: n.revision, Confirm: true}); err != nil {
		n.t.Fatal(err)
	}
	return n.revision
}

func (n *node) untilLevel(level uint64) {
	n.t.Helper()
	n.until("the level is reached", func() bool { return n.agent.Level() >= level })
}

// TestLevelWaitsForTheNetwork: a revision counts once the network is programmed
// for it, and one that changes nothing at once.
func TestLevelWaitsForTheNetwork(t *testing.T) {
	n := newNode(t)
	n.assign(true, task("t1", "web", running))
	n.untilState("t1", running)
	if got := n.agent.Level(); got != 0 {
		t.Fatalf("level %d before anything was programmed", got)
	}
	at := n.ask()
	if got := n.agent.Level(); got != 0 {
		t.Fatalf("level %d before anything was programmed", got)
	}
	n.agent.Programmed(at)
	if got := n.agent.Level(); got != at {
		t.Fatalf("level %d, programmed is %d", got, at)
	}
	if next := n.ask(); n.agent.Level() != next {
		t.Errorf("a revision without changes does not count at once: %d of %d", n.agent.Level(), next)
	}
}

// TestLevelBeyondANetworkInTrouble: one network that is not in order keeps the node from
// its level, and nobody from being told of the others.
func TestLevelBeyondANetworkInTrouble(t *testing.T) {
	n := newNode(t)
	n.assign(true, task("t1", "web", running))
	n.untilState("t1", running)
	n.agent.Programmed(n.revision)
	before := n.agent.Level()
	n.assign(false, task("t2", "web", running))
	n.untilState("t2", running)
	at := n.ask()
	n.agent.Programmed(at, "net1")
	if got, beyond := n.agent.Level(), n.agent.Beyond(); got != before || beyond == nil || beyond.Level != at ||
		beyond.Covers("net1") || !beyond.Covers("net2") {
		t.Errorf("level %d, beyond it %+v", got, beyond)
	}
	n.agent.Programmed(at)
	if got, beyond := n.agent.Level(), n.agent.Beyond(); got != at || beyond != nil {
		t.Errorf("in order: level %d, beyond it %+v", got, beyond)
	}
}

// TestLevelWaitsForTheEndOfTasks: neither a task that was taken away nor one that
// ended by itself may leave anything, here or on other nodes.
func TestLevelWaitsForTheEndOfTasks(t *testing.T) {
	for name, end := range map[string]func(*node, *api.Task){
		"taken away": func(n *node, one *api.Task) { n.unassign(one) },
		"told to stop": func(n *node, one *api.Task) {
			stop := one.Copy()
			stop.DesiredState = shutdown
			n.assign(false, stop)
			n.untilState("t1", shutdown)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			one := task("t1", "web", running)
			n.assign(true, one)
			n.untilState("t1", running)
			n.network.set(func(w *network) { w.stuck = 1 })
			open := make(chan struct{})
			n.table.mu.Lock()
			n.table.slow = open
			n.table.mu.Unlock()
			before := n.revision
			end(n, one)
			at := n.ask()
			n.agent.Programmed(at)
			if got := n.agent.Level(); name == "taken away" && got > before {
				t.Errorf("level %d although the task is still there since %d", got, before)
			}
			n.until("its namespace is gone", func() bool { return n.count("detach t1") > 0 })
			if got := n.agent.Level(); got >= at {
				t.Errorf("level %d although other nodes have not confirmed", got)
			}
			close(open)
			n.untilLevel(at)
		})
	}
}

// TestLevelAfterARestart: what an earlier run left is in the way of any level
// until it is gone.
func TestLevelAfterARestart(t *testing.T) {
	n := newNode(t)
	n.assign(true, task("t1", "web", running))
	n.untilState("t1", running)
	n.halt()
	n.boot()
	n.table.mu.Lock()
	open := make(chan struct{})
	n.table.slow = open
	n.table.mu.Unlock()
	n.assign(true) // the task was taken away meanwhile
	at := n.ask()
	n.agent.Programmed(at)
	if got := n.agent.Level(); got >= at {
		t.Errorf("level %d with a task of an earlier run", got)
	}
	close(open)
	n.untilLevel(at)
}
