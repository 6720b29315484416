package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/rpc"
)

func state(f *fixture, id string) swarm.NodeState { return f.store.View().Node(id).Status.State }

func described() *api.NodeReport {
	return &api.NodeReport{Description: swarm.NodeDescription{Hostname: "h1"}, Addr: "10.77.0.1", DataPathAddr: "10.77.0.1",
		Capabilities: api.Capabilities{Balancer: "nft", Algorithms: []string{"rr"}, Messages: []string{"an MTU black hole"}}}
}

func TestReports(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0)), api.Create(aTask("t1", "s", "n1")), api.Create(aTask("t2", "s", "n2")))
	ctx := t.Context()
	var elsewhere *rpc.NotLeaderError
	if err := f.Report(ctx, "n1", api.Report{}); !errors.As(err, &elsewhere) {
		t.Fatalf("without leadership: %v", err)
	}
	f.lead(t)
	running := swarm.TaskStatus{State: swarm.TaskStateRunning, Message: "started", Timestamp: f.now}
	for name, c := range map[string]struct {
		node string
		r    api.Report
		kind api.ErrorKind
	}{
		"unknown node":   {"nobody", api.Report{}, api.NotFound},
		"foreign name":   {"n1", api.Report{NodeID: "n2"}, api.Forbidden},
		"foreign task":   {"n1", api.Report{Tasks: []api.TaskReport{{TaskID: "t1", Status: running}, {TaskID: "t2", Status: running}}}, api.Forbidden},
		"broken address": {"n1", api.Report{Node: &api.NodeReport{DataPathAddr: "x"}}, api.Invalid},
	} {
		if err := f.Report(ctx, c.node, c.r); err == nil || api.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f.proposals != 0 {
		t.Errorf("%d proposals of refused reports", f.proposals)
	}
	err := f.Report(ctx, "n1", api.Report{NodeID: "n1", Node: described(), Tasks: []api.TaskReport{{TaskID: "t1", Status: running}, {TaskID: "gone", Status: running}}})
	if err != nil {
		t.Fatal(err)
	}
	n := f.store.View().Node("n1")
	if n.Status.State != swarm.NodeStateReady || n.Status.Addr != "10.77.0.1" || n.Description.Hostname != "h1" || n.DataPathAddr.String() != "10.77.0.1" {
		t.Errorf("node %+v", n)
	}
	if n.Capabilities.Balancer != "nft" || len(n.Capabilities.Messages) != 1 {
		t.Errorf("capabilities %+v", n.Capabilities)
	}
	if seen := trimNode(n).Capabilities; seen.Balancer != "nft" || seen.Messages != nil || len(n.Capabilities.Messages) != 1 {
		t.Errorf("other nodes are told %+v", seen)
	}
	if task := f.store.View().Task("t1"); task.Status.State != swarm.TaskStateRunning || task.StartedAt.IsZero() {
		t.Errorf("task %+v", task)
	}
	before := f.proposals
	for range 10 { // heartbeats and what is known already write nothing
		if err := f.Report(ctx, "n1", api.Report{Node: described(), Tasks: []api.TaskReport{{TaskID: "t1", Status: running}}}); err != nil {
			t.Fatal(err)
		}
	}
	if f.proposals != before {
		t.Errorf("%d proposals for nothing new", f.proposals-before)
	}
}

func TestReportsAreBatched(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0)))
	const tasks = 300
	for i := range tasks {
		f.must(api.Create(aTask(fmt.Sprint("t", i), "s", "n1")))
	}
	f.lead(t)
	var wg sync.WaitGroup
	for i := range tasks {
		wg.Go(func() {
			err := f.Report(context.Background(), "n1", api.Report{Tasks: []api.TaskReport{{TaskID: fmt.Sprint("t", i), Status: swarm.TaskStatus{State: swarm.TaskStateRunning}}}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range tasks {
		if f.store.View().Task(fmt.Sprint("t", i)).Status.State != swarm.TaskStateRunning {
			t.Fatalf("task %d", i)
		}
	}
	if f.proposals > tasks/10 {
		t.Errorf("%d proposals for %d reports", f.proposals, tasks)
	}
}

// TestABatchKeepsBoth: a heartbeat in the same batch does not take the place of what
// the node said of itself before.
func TestABatchKeepsBoth(t *testing.T) {
	f := newFixture()
	found(f)
	node := f.store.View().Node("n1")
	said, err := nodeOp(node, described())
	if err != nil {
		t.Fatal(err)
	}
	heard, err := nodeOp(node, nil)
	if err != nil {
		t.Fatal(err)
	}
	term := &term{reports: make(chan *pendingReport, 1)}
	term.reports <- &pendingReport{ops: []api.Op{*heard}}
	_, ops := term.gather(t.Context(), &pendingReport{ops: []api.Op{*said}})
	f.must(ops...)
	if n := f.store.View().Node("n1"); n.Status.State != swarm.NodeStateReady || n.Description.Hostname != "h1" {
		t.Errorf("of %d operations the node is left as %+v", len(ops), n)
	}
}

func TestSilentNodesGoDown(t *testing.T) {
	f := newFixture()
	found(f)
	f.Dispatcher.cfg.Heartbeat = time.Second
	ctx := t.Context()
	term := f.begin(ctx) // without Run: the test looks at the clock itself
	check := func() {
		t.Helper()
		if err := term.expire(ctx, f.store.View()); err != nil {
			t.Fatal(err)
		}
	}
	commitReports := func() { go term.batchReports(ctx) }
	commitReports()
	report := func(id string) {
		t.Helper()
		if err := f.Report(ctx, id, api.Report{}); err != nil {
			t.Fatal(err)
		}
	}
	check() // first look: doubled grace
	f.advance(5900 * time.Millisecond)
	report("n1")
	check()
	if state(f, "n1") != swarm.NodeStateReady || state(f, "n2") == swarm.NodeStateDown {
		t.Fatal("a node went down within its grace")
	}
	f.advance(200 * time.Millisecond)
	check()
	n2 := f.store.View().Node("n2")
	if n2.Status.State != swarm.NodeStateDown || n2.Status.Message != "heartbeat failure" || !n2.DownSince.Equal(f.now) {
		t.Fatalf("a node that was never heard: %+v", n2.Status)
	}
	f.advance(2700 * time.Millisecond) // 2.9 s after the report
	check()
	if state(f, "n1") != swarm.NodeStateReady {
		t.Fatal("down before three heartbeats were missed")
	}
	f.advance(200 * time.Millisecond)
	check()
	if state(f, "n1") != swarm.NodeStateDown {
		t.Fatal("not down after three missed heartbeats")
	}
	index := f.store.View().Index()
	check()
	if f.store.View().Index() != index {
		t.Error("a dead node dies again")
	}
	report("n1")
	n1 := f.store.View().Node("n1")
	if n1.Status.State != swarm.NodeStateReady || n1.Status.Message != "" || !n1.DownSince.IsZero() || n1.Description.Hostname != "host-n1" {
		t.Errorf("back again: %+v", n1)
	}
	term.pulse.hasten("n1", f.now, time.Second)
	f.advance(2100 * time.Millisecond)
	check()
	if state(f, "n1") != swarm.NodeStateDown {
		t.Error("a broken stream does not shorten the wait")
	}
}

// While the clock jumps, as for a manager that was stopped, nobody dies of it;
// who stays silent after it does.
func TestALateManagerExcusesNodes(t *testing.T) {
	f := newFixture()
	found(f)
	f.Dispatcher.cfg.Heartbeat = 40 * time.Millisecond
	f.lead(t)
	for _, id := range []string{"n1", "n2"} {
		if err := f.Report(t.Context(), id, api.Report{}); err != nil {
			t.Fatal(err)
		}
	}
	f.advance(time.Hour)
	term, _ := f.leading()
	waitFor(t, func() bool { // the next look
		term.pulse.mu.Lock()
		defer term.pulse.mu.Unlock()
		return term.pulse.until["n1"].After(f.clock())
	})
	if state(f, "n1") != swarm.NodeStateReady || state(f, "n2") != swarm.NodeStateReady {
		t.Fatal("nodes went down because the manager was stopped")
	}
	waitFor(t, func() bool { // small steps, as of a clock that runs
		f.advance(10 * time.Millisecond)
		return state(f, "n2") == swarm.NodeStateDown
	})
}

func TestSilenceIsNoticedInRealTime(t *testing.T) {
	f := newFixture()
	found(f)
	f.Dispatcher.cfg.Heartbeat, f.Dispatcher.cfg.Now = 50*time.Millisecond, time.Now
	f.lead(t)
	beat := func(id string) {
		if err := f.Report(context.Background(), id, api.Report{}); err != nil {
			t.Error(err)
		}
	}
	beat("n2")
	waitFor(t, func() bool { beat("n1"); return state(f, "n2") == swarm.NodeStateDown })
	if state(f, "n1") != swarm.NodeStateReady {
		t.Error("a node that reports went down")
	}
}
