package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/node/agent"
	"shoal/overlay/endpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ready    = swarm.TaskStateReady
	running  = swarm.TaskStateRunning
	shutdown = swarm.TaskStateShutdown
)

func TestLifeOfATask(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.deaf["t1"] = true })
	web := task("t1", "web", running)
	n.assign(true, web)
	n.until("the process started", func() bool { return n.count("start t1") == 1 })
	n.until("the state says so", func() bool { s, _ := n.agent.Status("t1"); return s.ContainerStatus != nil })
	if v, there := n.table.record("t1"); !there || v.State != endpoint.Starting {
		t.Errorf("before it accepts connections its record is %+v (%v): whom it asks must be able to answer, nobody may be sent to it", v, there)
	}
	n.network.set(func(w *network) { w.deaf["t1"] = false })
	st := n.untilState("t1", running)
	v, there := n.table.record("t1")
	if !there || v.TaskName != "web.1" || v.ServiceID != "svc" || v.VTEP.String() != "192.0.2.1" ||
		len(v.Attachments) != 1 || v.Attachments[0].MAC != "02:42:0a:00:01:03" || v.ContainerID != agent.ContainerID("t1") {
		t.Errorf("published %+v (%v)", v, there)
	}
	if st.ContainerStatus.PID == 0 || st.ContainerStatus.ContainerID != agent.ContainerID("t1") || st.Err != "" {
		t.Errorf("status is %+v", st)
	}

	n.assign(false, wish(web, shutdown))
	n.untilState("t1", shutdown)
	n.until("it is detached", func() bool { return n.count("detach t1") == 1 })
	n.inOrder("publish t1 starting", "create t1", "start t1", "publish t1 ready",
		"publish t1 draining", "settle t1", "stop t1", "withdraw t1", "detach t1")
	n.unassign(web)
	n.untilGone("t1")
	want := []swarm.TaskState{"accepted", "preparing", "ready", "starting", "running", "shutdown"}
	for i, s := range n.reported("t1") { // states that follow each other quickly are reported as one
		if !slices.Contains(want, s) {
			t.Errorf("reported %s as number %d", s, i)
		}
	}
}

func TestWaitsAtReady(t *testing.T) {
	n := newNode(t)
	web := task("t1", "web", ready)
	n.assign(true, web)
	n.untilState("t1", ready)
	if n.count("start t1") != 0 {
		t.Error("started although only ready was asked for")
	}
	n.assign(false, wish(web, running))
	n.untilState("t1", running)
}

func TestEnds(t *testing.T) {
	tests := []struct {
		image string
		state swarm.TaskState
		code  int
		words string
	}{
		{"done", swarm.TaskStateComplete, 0, ""},
		{"broken", swarm.TaskStateFailed, 3, "task: non-zero exit (3)"},
		{"odd", swarm.TaskStateFailed, 0, ""},
		{"nowhere:1", swarm.TaskStateRejected, 0, "No such image: nowhere:1: access denied, the repository does not exist or needs credentials"},
	}
	for _, tt := range tests {
		t.Run(tt.image, func(t *testing.T) {
			n := newNode(t)
			n.assign(true, task("t1", tt.image, running))
			st := n.untilState("t1", tt.state)
			if tt.words != "" && st.Err != tt.words || tt.image == "odd" && st.Err == "" {
				t.Errorf("says %q, want %q", st.Err, tt.words)
			}
			if st.ContainerStatus != nil && st.ContainerStatus.ExitCode != tt.code {
				t.Errorf("exit code %d, want %d", st.ContainerStatus.ExitCode, tt.code)
			}
			n.until("nothing of it is left in the network", func() bool {
				n.network.mu.Lock()
				defer n.network.mu.Unlock()
				_, published := n.table.record("t1")
				return !published && len(n.network.attached) == 0
			})
		})
	}
}

func TestProcessDies(t *testing.T) {
	n := newNode(t)
	n.assign(true, task("t1", "web", running))
	n.untilState("t1", running)
	if err := n.runtime.Exit(agent.ContainerID("t1"), 137); err != nil {
		t.Fatal(err)
	}
	if st := n.untilState("t1", swarm.TaskStateFailed); st.ContainerStatus.ExitCode != 137 || st.ContainerStatus.PID != 0 {
		t.Errorf("status is %+v", st)
	}
	n.until("it is withdrawn and detached", func() bool { return n.count("withdraw t1")*n.count("detach t1") == 1 })
}

func TestNetworkRefuses(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.refuse = errors.New("no address left") })
	n.assign(true, task("t1", "web", running))
	if st := n.untilState("t1", swarm.TaskStateRejected); st.Err != "network of task t1: no address left" {
		t.Errorf("says %q", st.Err)
	}
}

func TestPrepareIsInterrupted(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.hold = make(chan struct{}) })
	web := task("t1", "web", running)
	n.assign(true, web)
	n.untilState("t1", swarm.TaskStatePreparing)
	n.assign(false, wish(web, shutdown))
	n.untilState("t1", shutdown)
	n.inOrder("attach t1 cut")
	if n.count("create t1") != 0 {
		t.Error("made a container for a task that nobody wants")
	}
}

func TestDetachIsTriedAgain(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.stuck = 1 })
	n.assign(true, task("t1", "done", running))
	n.untilState("t1", swarm.TaskStateComplete)
	n.until("it is detached", func() bool { return n.count("detach t1") == 1 })
}

func TestRemovalWhileRunning(t *testing.T) {
	n := newNode(t)
	n.assign(true, task("t1", "web", running))
	n.untilState("t1", running)
	n.network.set(func(w *network) { w.stuck = 1 })
	n.assign(true)
	n.untilGone("t1")
	n.inOrder("publish t1 draining", "settle t1", "stop t1", "withdraw t1", "remove t1", "detach t1")
}

// TestHearsOutWhoConnected: a task gets its stop signal once it has read from all who
// connected before no node sent it any more, but nobody can put that off for ever.
func TestHearsOutWhoConnected(t *testing.T) {
	n := newNode(t)
	web := task("t1", "web", running)
	n.assign(true, web)
	n.untilState("t1", running)
	n.network.set(func(w *network) { w.unheard = 1 })
	n.unassign(web)
	const look = "look for the unheard of t1"
	n.until("it looks again and again", func() bool { return n.count(look) > 4 })
	if n.count("stop t1") != 0 {
		t.Error("it is stopped although it has not heard somebody")
	}
	n.network.set(func(w *network) { w.unheard = 0 })
	n.untilGone("t1")
	n.inOrder("settle t1", look, look, look, "stop t1")

	n.assign(true, task("t2", "web", running))
	n.untilState("t2", running)
	n.network.set(func(w *network) { w.unheard = 1 })
	n.assign(true)
	n.untilGone("t2")
}

func TestAssignedAgainWhileItGoes(t *testing.T) {
	n := newNode(t)
	web := task("t1", "web", running)
	n.assign(true, web)
	n.untilState("t1", running)
	n.network.set(func(w *network) { w.stuck = 1 })
	n.unassign(web)
	n.until("it is being removed", func() bool { return n.count("remove t1") == 1 })
	n.assign(false, wish(web, shutdown))
	n.until("its end is reported", func() bool { s, here := n.agent.Status("t1"); return here && api.Terminal(s.State) })
}

func TestRestart(t *testing.T) {
	n := newNode(t)
	keep, ends := task("t1", "web", running), task("t2", "web", running)
	half, wait := task("t3", "web", running), task("t4", "web", ready)
	n.assign(true, keep, ends, wait)
	n.untilState("t1", running)
	n.untilState("t2", running)
	n.untilState("t4", ready)
	n.network.set(func(w *network) { w.hold = make(chan struct{}) })
	n.assign(false, half)
	n.untilState("t3", swarm.TaskStatePreparing)
	n.halt()
	if err := n.runtime.Exit(agent.ContainerID("t2"), 9); err != nil {
		t.Fatal(err)
	}
	n.network.set(func(w *network) { w.hold, w.deaf["t1"] = nil, true })
	n.boot()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	n.agent.Restored(ctx)
	if _, there := n.table.record("t1"); !there || ctx.Err() != nil {
		t.Errorf("the task that runs is not published again (%v)", ctx.Err())
	}
	n.untilState("t1", running)
	n.untilState("t3", running)
	n.until("the one that waits is made again", func() bool { return n.count("create t4") == 2 })
	if st := n.untilState("t2", swarm.TaskStateFailed); st.Err != "task: non-zero exit (9)" {
		t.Errorf("the task that ended says %q", st.Err)
	}
	if n.count("start t1") != 1 || n.count("stop t1") != 0 || n.count("start t4") != 0 {
		t.Errorf("the restart touched what runs:\n%v", n.all())
	}
}

// TestRestartKeepsWhatLeadsToATask: before the network compares anything with its
// kernel, the tasks that outlived the restart count again, and no other.
func TestRestartKeepsWhatLeadsToATask(t *testing.T) {
	n := newNode(t)
	keep, ends, other := task("t1", "web", running), task("t2", "web", running), task("t3", "web", running)
	n.assign(true, keep, ends, other)
	for _, id := range []string{"t1", "t2", "t3"} {
		n.untilState(id, running)
	}
	n.halt()
	if err := n.runtime.Exit(agent.ContainerID("t2"), 0); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	n.network.set(func(w *network) { w.hold = release }) // the network has not begun
	n.boot()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if n.agent.Sighted(ctx); ctx.Err() != nil {
		t.Fatal("the tasks are not known before they are wired")
	}
	for id, want := range map[string]bool{"t1": true, "t2": false, "t3": true} {
		if _, there := n.table.record(id); there != want {
			t.Errorf("%s counts: %v", id, there)
		}
	}
	close(release)
	n.agent.Restored(ctx)
	n.untilState("t2", swarm.TaskStateComplete)
}

func TestRestartWhileShuttingDown(t *testing.T) {
	n := newNode(t)
	web := task("t1", "web", running)
	n.assign(true, web)
	n.untilState("t1", running)
	n.halt()
	n.boot()
	n.assign(false, wish(web, shutdown))
	n.untilState("t1", shutdown)
	n.restart()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if n.agent.Restored(ctx); ctx.Err() != nil {
		t.Error("a task that ends holds the restart back")
	}
	n.untilState("t1", shutdown)
}

func TestRestartBeforeTheRuntimeAnswers(t *testing.T) {
	n := newNode(t)
	n.assign(true, task("t1", "web", running))
	n.untilState("t1", running)
	n.halt()
	n.runtime.fail(errors.New("connection refused"))
	n.boot()
	n.runtime.fail(nil)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	n.agent.Restored(ctx)
	if st, _ := n.agent.Status("t1"); st.State != running || n.count("start t1") != 1 {
		t.Errorf("task is %s", st.State)
	}
}

func TestRestartFindsNoContainer(t *testing.T) {
	n := newNode(t)
	n.assign(true, task("t1", "web", running))
	n.untilState("t1", running)
	n.halt()
	if err := n.runtime.Remove(context.Background(), agent.ContainerID("t1")); err != nil {
		t.Fatal(err)
	}
	n.boot()
	n.untilState("t1", swarm.TaskStateFailed)
}

func TestDamagedStateFailsTheTask(t *testing.T) {
	for _, content := range []string{"", "{", `{"Status":{"State":"rejected"},"Detached":5}`} {
		n := newNode(t)
		n.assign(true, task("t1", "web", running))
		n.untilState("t1", running)
		n.halt()
		if err := os.WriteFile(filepath.Join(n.dir, "tasks", "t1", "state.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		n.boot()
		n.untilState("t1", swarm.TaskStateFailed)
		n.until("its process is stopped", func() bool { return n.count("stop t1") == 1 })
	}
}

func TestSweep(t *testing.T) {
	n := newNode(t)
	n.assign(true, task("t1", "web", running))
	n.untilState("t1", running)
	n.halt()
	if err := os.Remove(filepath.Join(n.dir, "assigned.json")); err != nil {
		t.Fatal(err)
	}
	n.boot()
	if n.count("remove t1") != 0 {
		t.Error("removed a task in ignorance")
	}
	n.assign(true)
	n.until("it is swept", func() bool { return n.count("remove t1") == 1 })
	n.untilGone("t1")
}

func TestReports(t *testing.T) {
	n := newNode(t)
	n.assign(true, task("t1", "web", running))
	n.untilState("t1", running)
	if all := n.agent.All(); len(all) != 1 || all[0].Status.State != running {
		t.Errorf("all are %+v", all)
	}
	if left := n.agent.Unreported(); len(left) != 0 {
		t.Errorf("reported twice: %+v", left)
	}
	old := []api.TaskReport{{TaskID: "t1", Status: swarm.TaskStatus{State: ready}}, {TaskID: "unknown"}}
	n.agent.Requeue(old)
	if back := n.agent.Unreported(); len(back) != 1 || back[0].TaskID != "t1" {
		t.Errorf("after a failed delivery: %+v", back)
	}
}

// TestAnswersRunOut: a task whose own address its service's name gives gets its
// stop signal once nobody may still use an answer; no other task waits for that.
func TestAnswersRunOut(t *testing.T) {
	for _, tt := range []struct {
		name    string
		mode    swarm.ResolutionMode
		removed bool
		ttl     time.Duration
		waits   bool
	}{
		{"dnsrr", swarm.ResolutionModeDNSRR, false, 300 * time.Millisecond, true},
		{"vip", swarm.ResolutionModeVIP, false, time.Hour, false},
		{"dnsrr, service removed", swarm.ResolutionModeDNSRR, true, time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.halt()
			n.ttl = tt.ttl
			n.boot()
			web, svc := task("t1", "web", running), &api.Service{}
			svc.ID, svc.Spec.EndpointSpec = "svc", &swarm.EndpointSpec{Mode: tt.mode}
			n.assignAll(true, web, svc)
			n.untilState("t1", running)
			told := time.Now()
			if tt.removed {
				n.assignAll(true, wish(web, shutdown))
			} else {
				n.assign(false, wish(web, shutdown))
			}
			n.untilState("t1", shutdown)
			if took := time.Since(told); tt.waits && took < tt.ttl {
				t.Errorf("it was stopped after %v, answers count for %v", took, tt.ttl)
			}
		})
	}
}
