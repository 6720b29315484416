package dispatch

import (
	"context"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/rpc"
)

// TestClientAbandons: a session with a manager that is said to be gone ends at once
// and begins anew, no other does, and a manager that was there all the time is called
// again before it takes the node for dead.
func TestClientAbandons(t *testing.T) {
	root, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture()
	found(f)
	addr := port(t, f.Dispatcher, source(root, "m1", swarm.NodeRoleManager))
	f.lead(t)
	client := &Client{RPC: rpc.NewClient(source(root, "n1", swarm.NodeRoleWorker), nil), NodeID: "n1", Managers: func() []string { return []string{addr} }}
	defer client.RPC.Close()
	ctx, cancel := context.WithCancel(t.Context())
	whole, done := make(chan struct{}, 10), make(chan struct{})
	go func() {
		defer close(done)
		_ = client.Run(ctx, func(m api.Assignment) error { // it ends with ctx
			if m.Full {
				whole <- struct{}{}
			}
			return nil
		}, newFakeAgent())
	}()
	defer func() { cancel(); <-done }()
	client.Abandon("") // there may be no session yet
	<-whole
	waitFor(t, func() bool { return state(f, "n1") == swarm.NodeStateReady })
	client.Abandon("192.0.2.1:2377")
	select {
	case <-whole:
		t.Fatal("a session ended for another manager's sake")
	case <-time.After(300 * time.Millisecond):
	}
	client.Abandon(addr)
	select {
	case <-whole:
	case <-time.After(suspicion + lastBackoff):
		t.Error("no new session in time")
	}
	if s := state(f, "n1"); s != swarm.NodeStateReady {
		t.Errorf("the node is %s", s)
	}
}
