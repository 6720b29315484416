package agent_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/overlay/endpoint"
)

// checked is a task whose health is asked for every few milliseconds.
func checked(id string) *api.Task {
	t := task(id, "checked", running)
	t.Spec.ContainerSpec.Healthcheck = &container.HealthConfig{
		Test: []string{"CMD", "/check"}, Interval: 5 * time.Millisecond, Timeout: 20 * time.Millisecond, Retries: 2,
	}
	return t
}

func (n *node) healthOf(id string) container.HealthStatus {
	if h := n.agent.Health(id); h != nil {
		return h.Status
	}
	return container.NoHealthcheck
}

// TestHealth: a task takes part only while it is healthy, and ends when it is not.
func TestHealth(t *testing.T) {
	n := newNode(t)
	n.ill.Store(true)
	web := checked("t1")
	web.Spec.ContainerSpec.Healthcheck.StartPeriod = time.Hour
	web.Spec.ContainerSpec.Healthcheck.StartInterval = 5 * time.Millisecond
	n.assign(true, web)
	n.until("it is asked", func() bool { h := n.agent.Health("t1"); return h != nil && len(h.Log) > 2 })
	if st, _ := n.agent.Status("t1"); st.State != "starting" || n.healthOf("t1") != container.Starting || n.count("publish t1 ready") > 0 {
		t.Errorf("before it is healthy: %s, %s\n%v", st.State, n.healthOf("t1"), n.all())
	}
	n.ill.Store(false)
	n.untilState("t1", running)
	if _, published := n.table.record("t1"); !published || n.healthOf("t1") != container.Healthy {
		t.Errorf("healthy: published %t, %s", published, n.healthOf("t1"))
	}
	n.ill.Store(true)
	st := n.untilState("t1", "failed")
	if st.Err != "task: non-zero exit (143): unhealthy container" || st.ContainerStatus.ExitCode != 143 || st.ContainerStatus.PID != 0 {
		t.Errorf("unhealthy: %+v", st)
	}
	n.until("it is detached", func() bool { return n.count("detach t1") == 1 })
	n.inOrder("start t1", "publish t1 ready", "publish t1 draining", "settle t1", "stop t1", "withdraw t1", "detach t1")
}

func TestNeverHealthy(t *testing.T) {
	for name, hang := range map[string]bool{"fails": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.ill.Store(true)
			n.hang.Store(hang)
			n.assign(true, checked("t1"))
			st := n.untilState("t1", "failed")
			if !strings.HasSuffix(st.Err, "unhealthy container") || n.count("publish t1 ready") > 0 {
				t.Errorf("%q\n%v", st.Err, n.all())
			}
			log := n.agent.Health("t1").Log
			if last := log[len(log)-1].Output; hang != strings.HasPrefix(last, "Health check exceeded timeout (20ms)") {
				t.Errorf("the last answer: %q", last)
			}
		})
	}
}

// TestUnwantedBeforeHealthy: a task that nobody wants any more is not waited for.
func TestUnwantedBeforeHealthy(t *testing.T) {
	n := newNode(t)
	n.ill.Store(true)
	web := checked("t1")
	web.Spec.ContainerSpec.Healthcheck.Retries = 1 << 20
	n.assign(true, web)
	n.until("it is asked", func() bool { h := n.agent.Health("t1"); return h != nil && len(h.Log) > 0 })
	n.assign(false, wish(web, shutdown))
	n.untilState("t1", shutdown)
}

// TestRestartOfTheHealthy: what took part takes part at once, and is asked on; what
// was about to end is never published again.
func TestRestartOfTheHealthy(t *testing.T) {
	n := newNode(t)
	n.assign(true, checked("t1"), checked("t2"))
	n.untilState("t1", running)
	n.untilState("t2", running)
	n.halt()
	path := filepath.Join(n.dir, "tasks", "t2", "state.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(raw), "{", `{"Unhealthy":true,`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	n.boot()
	n.until("the healthy one is published again", func() bool { _, there := n.table.record("t1"); return there })
	n.untilState("t2", "failed")
	if n.count("publish t2 ready") != 1 {
		t.Errorf("the unhealthy one is published again:\n%v", n.all())
	}
	n.ill.Store(true)
	n.untilState("t1", "failed")
}

func TestReadyLabels(t *testing.T) {
	for name, labels := range map[string]map[string]string{
		"when it is started": {api.LabelReady: "started", api.LabelReadyTimeout: "1h"},
		"after a short wait": {api.LabelReadyTimeout: "20ms"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.network.set(func(w *network) { w.deaf["t1"] = true })
			web := task("t1", "web", running)
			web.ServiceLabels = labels
			n.assign(true, web)
			n.untilState("t1", running)
		})
	}
}

// TestExposedPort: a task that publishes nothing is waited for where its image says
// that it listens.
func TestExposedPort(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.deaf["t1"] = true })
	web := task("t1", "exposed", running)
	web.Ports = nil
	n.assign(true, web)
	n.until("the process started", func() bool { s, _ := n.agent.Status("t1"); return s.ContainerStatus != nil })
	n.until("it is asked", func() bool {
		n.network.mu.Lock()
		defer n.network.mu.Unlock()
		return len(n.network.asked) > 0
	})
	if v, _ := n.table.record("t1"); v.State != endpoint.Starting || n.network.asked[0] != 80 {
		t.Errorf("published as %s before port %v accepts", v.State, n.network.asked)
	}
	n.network.set(func(w *network) { w.deaf["t1"] = false })
	n.untilState("t1", running)
}

// TestOneOfTheExposedPorts: an image may expose ports that its program opens only
// when it is told to; what is published is waited for.
func TestOneOfTheExposedPorts(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.closed = []uint16{443} })
	web := task("t1", "exposes-two", running)
	web.Ports = nil
	n.assign(true, web)
	n.untilState("t1", running)
	both := task("t2", "exposes-two", running)
	both.Ports = append(both.Ports, swarm.PortConfig{Protocol: "tcp", TargetPort: 443, PublishedPort: 8443})
	n.assign(false, both)
	n.until("the reason is told", func() bool {
		s, _ := n.agent.Status("t2")
		return s.State == "starting" && s.Err == "takes no requests yet: waits until 80/tcp and 443/tcp accept connections"
	})
}

// TestRestartWithATaskThatIsNotHealthyYet: what takes no part yet holds nothing up:
// until all is restored the node tells the others nothing.
func TestRestartWithATaskThatIsNotHealthyYet(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.deaf["t1"] = true })
	n.assign(true, task("t1", "web", running))
	n.until("the process started", func() bool { s, _ := n.agent.Status("t1"); return s.ContainerStatus != nil })
	n.restart()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	n.agent.Restored(ctx)
	if ctx.Err() != nil {
		t.Error("a task that does not listen yet keeps the node from being restored")
	}
}

// TestWaitingIsTold: why a task takes no requests yet is a reason for people, until
// it does.
func TestWaitingIsTold(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.deaf["t1"] = true })
	n.assign(true, task("t1", "web", running))
	n.until("the reason is told", func() bool {
		s, _ := n.agent.Status("t1")
		return s.State == "starting" && s.Err == "takes no requests yet: waits until 80/tcp accepts connections"
	})
	n.network.set(func(w *network) { w.deaf["t1"] = false })
	n.untilState("t1", running)
	if s, _ := n.agent.Status("t1"); s.Err != "" {
		t.Errorf("it runs, yet %q", s.Err)
	}
}

// TestSlowNodesGetTime: where the gossip is slowed down, nodes have as much longer
// to confirm that they send a task nothing new.
func TestSlowNodesGetTime(t *testing.T) {
	given := map[float64]time.Duration{}
	for _, scale := range []float64{0, 1, 5} {
		n := newNode(t)
		n.halt()
		n.scale = scale
		n.boot()
		web := task("t1", "web", running)
		n.assign(true, web)
		n.untilState("t1", running)
		n.assign(false, wish(web, shutdown))
		n.untilState("t1", shutdown)
		n.table.mu.Lock()
		given[scale] = n.table.patience.Round(time.Second)
		n.table.mu.Unlock()
	}
	if given[0] == 0 || given[1] != given[0] || given[5] != 5*given[0] {
		t.Errorf("nodes get %v", given)
	}
}
