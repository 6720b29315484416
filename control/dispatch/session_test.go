package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/api"
	"shoal/control/rpc"
)

func TestTheFullSetIsTrimmed(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("web", 8080)), api.Create(aService("db", 0, "net1")), api.Create(aService("far", 0, "net2")),
		api.Create(aTask("t1", "db", "n1", "net1")), api.Create(aTask("t2", "far", "n2", "net2")))
	f.lead(t)
	r, _ := f.watch(t, "n1")
	for _, c := range []struct {
		kind api.Kind
		id   string
		want bool
	}{
		{api.KindCluster, "cluster", true}, {api.KindNode, "n1", true}, {api.KindNode, "n2", true},
		{api.KindNetwork, "ingress", true}, {api.KindNetwork, "net1", true}, {api.KindNetwork, "net2", false},
		{api.KindService, "web", true}, {api.KindService, "db", true}, {api.KindService, "far", false},
		{api.KindTask, "t1", true}, {api.KindTask, "t2", false},
	} {
		if got := r.get(c.kind, c.id) != nil; got != c.want {
			t.Errorf("%s %s: %v, want %v", c.kind, c.id, got, c.want)
		}
	}
	cluster := r.get(api.KindCluster, "cluster").(*api.Cluster)
	if cluster.CAKey != nil || cluster.JoinTokens != (swarm.JoinTokens{}) || cluster.Spec.CAConfig.SigningCAKey != "" || len(cluster.GossipKeys) != 1 {
		t.Errorf("cluster %+v", cluster)
	}
	db := r.get(api.KindService, "db").(*api.Service)
	if db.Spec.TaskTemplate.ContainerSpec != nil || len(db.Spec.TaskTemplate.Networks) != 1 || db.Spec.Name != "name-db" {
		t.Errorf("service %+v", db)
	}
	if n := r.get(api.KindNode, "n2").(*api.Node); n.Number != 2 || n.Description.Hostname != "host-n2" || n.Description.Resources.MemoryBytes != 0 {
		t.Errorf("node %+v", n)
	}
	if stored := f.store.View().Service("db"); stored.Spec.TaskTemplate.ContainerSpec == nil {
		t.Error("trimming changed the store")
	}
}

func TestChangesThatDoNotMatterAreNotSent(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("far", 0, "net2")), api.Create(aTask("t1", "far", "n1")), api.Create(aTask("t2", "far", "n2", "net2")))
	f.lead(t)
	r, _ := f.watch(t, "n1")
	touch := func(id, message string) {
		task := f.store.View().Task(id).Copy()
		task.Status.State, task.Status.Message = swarm.TaskStateRunning, message
		f.must(api.Status(task))
	}
	touch("t1", "own status") // the node reported it itself
	touch("t2", "another node's task")
	far := f.store.View().Service("far").Copy()
	far.Spec.Labels = map[string]string{"a": "b"}
	f.must(api.Update(far))
	node := f.store.View().Node("n2").Copy()
	node.Description.Engine.EngineVersion = "2"
	f.must(api.Status(node))
	// A change that does matter comes alone.
	f.must(api.Create(aTask("t3", "far", "n1", "net1")))
	waitFor(t, func() bool { return r.get(api.KindTask, "t3") != nil })
	if r.count() != 2 || len(r.errors) != 0 {
		t.Errorf("%d messages, %v", r.count(), r.errors)
	}
	if r.get(api.KindNetwork, "net1") == nil {
		t.Error("the new task's network is missing")
	}
}

func TestHistoryIsTakenBack(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0, "net1")), api.Create(aTask("t1", "s", "n1", "net1")))
	f.lead(t)
	r, _ := f.watch(t, "n1")
	task := f.store.View().Task("t1").Copy()
	task.DesiredState = swarm.TaskStateShutdown
	f.must(api.Update(task))
	waitFor(t, func() bool {
		got, _ := r.get(api.KindTask, "t1").(*api.Task)
		return got != nil && got.DesiredState == swarm.TaskStateShutdown
	})
	task = f.store.View().Task("t1").Copy()
	task.Status.State = swarm.TaskStateShutdown
	f.must(api.Status(task))
	waitFor(t, func() bool { return r.get(api.KindTask, "t1") == nil })
	if r.get(api.KindNetwork, "net1") != nil || r.get(api.KindService, "s") != nil {
		t.Error("the network or service of a task that is over stays")
	}
}

// TestARemovedNodeIsDismissed: its tasks and itself are taken back, it hears nothing of
// what comes after, and it opens no session any more.
func TestARemovedNodeIsDismissed(t *testing.T) {
	f := newFixture()
	found(f)
	f.must(api.Create(aService("s", 0, "net1")), api.Create(aTask("t1", "s", "n1", "net1")), api.Create(aTask("t2", "s", "n2", "net1")))
	f.lead(t)
	r := &replica{}
	done := make(chan error, 1)
	go func() { done <- f.Session(context.Background(), "n1", r.apply) }()
	waitFor(t, func() bool { return r.count() == 1 })
	cluster := f.store.View().Cluster().Copy()
	cluster.GossipKeys = [][]byte{[]byte("new")}
	f.must(api.Update(cluster), api.Delete(f.store.View().Node("n1")))
	select {
	case err := <-done:
		if api.KindOf(err) != api.Forbidden || !strings.Contains(err.Error(), "node n1 was removed") {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the session of a removed node goes on")
	}
	if r.get(api.KindTask, "t1") != nil || r.get(api.KindNode, "n1") != nil || r.get(api.KindNode, "n2") == nil {
		t.Error("its task or itself was not taken back, or more than that")
	}
	if keys := r.get(api.KindCluster, "cluster").(*api.Cluster).GossipKeys; string(keys[0]) != "gossip" {
		t.Errorf("it was given the key %s", keys[0])
	}
	if err := f.Session(t.Context(), "n1", r.apply); api.KindOf(err) != api.NotFound {
		t.Errorf("another session: %v", err)
	}
}

func TestSessionsEnd(t *testing.T) {
	f := newFixture()
	found(f)
	err := f.Session(t.Context(), "n1", func(api.Assignment) error { return nil })
	var elsewhere *rpc.NotLeaderError
	if !errors.As(err, &elsewhere) || elsewhere.Leader != "10.0.0.9:2377" {
		t.Fatalf("without leadership: %v", err)
	}
	stop := f.lead(t)
	if err := f.Session(t.Context(), "nobody", nil); api.KindOf(err) != api.NotFound {
		t.Errorf("unknown node: %v", err)
	}
	broken := errors.New("broken")
	if err := f.Session(t.Context(), "n1", func(api.Assignment) error { return broken }); err != broken {
		t.Errorf("send failed: %v", err)
	}
	old := make(chan error, 1)
	first := make(chan struct{}, 1)
	go func() {
		old <- f.Session(context.Background(), "n1", func(api.Assignment) error { first <- struct{}{}; return nil })
	}()
	<-first
	newer := make(chan error, 1)
	go func() {
		newer <- f.Session(context.Background(), "n1", func(api.Assignment) error { first <- struct{}{}; return nil })
	}()
	if err := <-old; err != errReplaced {
		t.Errorf("older session: %v", err)
	}
	<-first
	stop()
	if err := <-newer; !errors.As(err, &elsewhere) {
		t.Errorf("leadership lost: %v", err)
	}
}

// Whatever happens, the diffs add up to what a new session would get.
func TestDiffsAddUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newFixture()
		found(f)
		ctx, cancel := context.WithCancel(context.Background())
		run := make(chan error, 1)
		go func() { run <- f.Run(ctx) }()
		waitFor(rt, func() bool { _, err := f.leading(); return err == nil })
		replicas := map[string]*replica{"n1": {}, "n2": {}}
		ends := make(chan error, len(replicas))
		for id, r := range replicas {
			go func() { ends <- f.Session(ctx, id, r.apply) }()
		}
		steps := rapid.IntRange(1, 60).Draw(rt, "steps")
		for range steps {
			step(rt, f)
		}
		term, _ := f.leading()
		for id, r := range replicas {
			waitFor(rt, func() bool { return r.count() > 0 && reflect.DeepEqual(essences(r), fresh(term.hub, f, id)) })
			if len(r.errors) > 0 {
				rt.Errorf("node %s: %v", id, r.errors)
			}
		}
		cancel()
		for range replicas {
			<-ends
		}
		if err := <-run; err != nil {
			rt.Error(err)
		}
	})
}

// fresh is what a new session of the node would be sent.
func fresh(h *hub, f *fixture, nodeID string) map[key]api.Object {
	s := &session{nodeID: nodeID, sent: map[key]uint64{}, dirt: dirt{all: true, nodes: map[string]bool{}}}
	r := &replica{}
	m, _ := h.flush(s, f.store)
	m.Full = true
	r.apply(m)
	return essences(r)
}

func essences(r *replica) map[key]api.Object {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := maps.Clone(r.objects)
	for k, obj := range out {
		out[k] = essence(obj)
	}
	return out
}

// step does one random thing to the state; what the store refuses is no step.
func step(rt *rapid.T, f *fixture) {
	view := f.store.View()
	pick := func(name string, all ...string) string { return rapid.SampledFrom(all).Draw(rt, name) }
	id := pick("id", "1", "2", "3")
	node, network := pick("node", "n1", "n2"), pick("network", "net1", "net2", "name-net1", "")
	var networks []string
	if network != "" {
		networks = []string{network}
	}
	switch pick("what", "service", "service", "task", "task", "status", "desire", "untask", "unservice", "node", "cluster", "network") {
	case "service":
		next := aService("s"+id, rapid.SampledFrom([]uint32{0, 8081, 8082}).Draw(rt, "port"), networks...)
		next.Spec.Labels = map[string]string{"draw": pick("label", "a", "b")}
		if view.Service(next.ID) == nil {
			f.commit(api.Create(next))
		} else {
			f.commit(api.UpdateAnyway(next))
		}
	case "task":
		var attached []string
		if network == "net1" || network == "net2" {
			attached = networks
		}
		f.commit(api.Create(aTask(fmt.Sprint("t", len(view.Tasks()), id), "s"+id, node, attached...)))
	case "status", "desire", "untask":
		changeTask(rt, f)
	case "unservice":
		if s := view.Service("s" + id); s != nil {
			f.commit(api.Delete(s))
		}
	case "node":
		changeNode(rt, f, id)
	case "cluster":
		c := view.Cluster().Copy()
		c.GossipKeys = append(c.GossipKeys, []byte(id))
		f.commit(api.Update(c))
	case "network":
		n := view.Network("net1").Copy()
		n.Spec.Labels = map[string]string{"draw": id}
		f.commit(api.Update(n))
	}
}

func changeTask(rt *rapid.T, f *fixture) {
	tasks := f.store.View().Tasks()
	if len(tasks) == 0 {
		return
	}
	task := rapid.SampledFrom(tasks).Draw(rt, "task").Copy()
	switch rapid.IntRange(0, 2).Draw(rt, "change") {
	case 0:
		task.Status.State = rapid.SampledFrom([]swarm.TaskState{"running", "failed", "shutdown"}).Draw(rt, "state")
		f.commit(api.Status(task))
	case 1:
		task.DesiredState = rapid.SampledFrom([]swarm.TaskState{"ready", "running", "shutdown", "remove"}).Draw(rt, "desired")
		f.commit(api.Update(task))
	case 2:
		f.commit(api.Delete(task))
	}
}

func changeNode(rt *rapid.T, f *fixture, id string) {
	view := f.store.View()
	extra := view.Node("x" + id)
	if extra == nil {
		f.commit(api.Create(aNode("x"+id, 10+uint32(id[0]-'0'))))
		return
	}
	if rapid.Bool().Draw(rt, "remove") {
		f.commit(api.Delete(extra))
		return
	}
	next := extra.Copy()
	next.Status.Message = rapid.SampledFrom([]string{"", "m"}).Draw(rt, "message")
	next.Description.Resources.NanoCPUs++
	f.commit(api.Status(next))
}

// A store that was replaced by a snapshot, or ran ahead, is caught up with.
func TestALostSubscriptionStartsOver(t *testing.T) {
	f := newFixture()
	found(f)
	f.lead(t)
	r, _ := f.watch(t, "n1")
	pipe := &bytes.Buffer{}
	if err := f.store.Save(pipe); err != nil {
		t.Fatal(err)
	}
	f.must(api.Create(aNode("gone", 7)))
	waitFor(t, func() bool { return r.get(api.KindNode, "gone") != nil })
	if err := f.store.Restore(pipe); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return r.get(api.KindNode, "gone") == nil })
	if r.get(api.KindNode, "n2") == nil {
		t.Error("a node that stayed was taken back")
	}
}
