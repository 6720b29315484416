package store

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/api"
)

// model is the store as a few maps: slow, and simple enough to be right.
type model struct {
	tasks map[string]*api.Task
	// retired has the addresses that are not free yet, and since when.
	retired map[string]uint64
}

func (m model) clone() model { return model{maps.Clone(m.tasks), maps.Clone(m.retired)} }

var states = []swarm.TaskState{
	swarm.TaskStateNew, swarm.TaskStateAssigned, swarm.TaskStateRunning, swarm.TaskStateShutdown, swarm.TaskStateFailed,
}

func drawTask(t *rapid.T) *api.Task {
	id := fmt.Sprintf("t%d", rapid.IntRange(0, 6).Draw(t, "id"))
	out := task(id, "s1", rapid.SampledFrom(states).Draw(t, "state"))
	out.NodeID = rapid.SampledFrom([]string{"", "h1", "h2"}).Draw(t, "node")
	if a := rapid.IntRange(0, 4).Draw(t, "address"); a > 0 {
		out.NetworksAttachments = []swarm.NetworkAttachment{{
			Network:   swarm.Network{ID: "n1"},
			Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.1.%d/24", a))},
		}}
	}
	return out
}

func drawOp(t *rapid.T) api.Op {
	if rapid.IntRange(0, 5).Draw(t, "release") == 0 {
		return api.Release(rapid.Uint64Range(1, 12).Draw(t, "level"))
	}
	action := rapid.SampledFrom([]api.Action{api.ActionCreate, api.ActionUpdate, api.ActionDelete, api.ActionStatus})
	return api.Op{Action: action.Draw(t, "action"), Object: drawTask(t)}
}

// apply returns the model after one operation, or false for a refusal.
func (m model) apply(index uint64, op api.Op) bool {
	if op.Action == api.ActionRelease {
		maps.DeleteFunc(m.retired, func(_ string, since uint64) bool { return since <= op.Object.ObjectMeta().Version.Index })
		return true
	}
	next := op.Object.(*api.Task)
	next = next.Copy()
	old := m.tasks[next.ID]
	switch {
	case op.Action == api.ActionCreate && old != nil, op.Action == api.ActionUpdate && old == nil:
		return false
	case op.Action == api.ActionDelete:
		m.retire(index, old, nil)
		delete(m.tasks, next.ID)
		return true
	case op.Action == api.ActionStatus && old == nil:
		return true
	case op.Action == api.ActionStatus:
		state := next.Status.State
		next = old.Copy()
		if api.Rank(state) > api.Rank(old.Status.State) {
			next.Status.State = state
		}
	case op.Action == api.ActionUpdate && api.Rank(next.Status.State) < api.Rank(old.Status.State):
		next.Status = old.Status
	}
	if _, waits := m.retired[addressOf(next)]; waits && next.Alive() {
		return false
	}
	for _, other := range m.tasks {
		if other.ID != next.ID && other.Alive() && next.Alive() && addressOf(next) != "" && addressOf(next) == addressOf(other) {
			return false
		}
	}
	m.retire(index, old, next)
	m.tasks[next.ID] = next
	return true
}

// retire holds back the address that a task on a node gives up.
func (m model) retire(index uint64, old, next *api.Task) {
	if old == nil || !old.Alive() || api.Rank(old.Status.State) < api.Rank(swarm.TaskStateAssigned) || addressOf(old) == "" {
		return
	}
	if next == nil || !next.Alive() || addressOf(next) != addressOf(old) {
		m.retired[addressOf(old)] = index
	}
}

func addressOf(t *api.Task) string {
	if len(t.NetworksAttachments) == 0 {
		return ""
	}
	return t.NetworksAttachments[0].Addresses[0].String()
}

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, m := New(), model{map[string]*api.Task{}, map[string]uint64{}}
		if err := s.Commit(1, day, []api.Op{api.Create(overlay("n1", "app", 1)), api.Create(service("s1", "web"))}); err != nil {
			t.Fatal(err)
		}
		for index := uint64(2); index < 12; index++ {
			ops := rapid.SliceOfN(rapid.Custom(drawOp), 1, 4).Draw(t, "ops")
			after, ok := m.clone(), true
			for _, op := range ops {
				ok = ok && after.apply(index, op)
			}
			if err := s.Commit(index, day, ops); (err == nil) != ok {
				t.Fatalf("the store says %v, the model %v", err, ok)
			}
			if ok {
				m = after
			}
			compare(t, s.View(), m)
		}
		roundTrip(t, s)
	})
}

func compare(t *rapid.T, v *View, m model) {
	byNode := map[string][]string{}
	got := v.Tasks()
	if len(got) != len(m.tasks) {
		t.Fatalf("the store has %d tasks, the model %d", len(got), len(m.tasks))
	}
	retired := map[string]uint64{}
	for _, r := range v.Retired() {
		for _, a := range r.Addresses {
			retired[netip.PrefixFrom(a.Addr, 24).String()] = r.Version.Index
		}
	}
	if !maps.Equal(retired, m.retired) {
		t.Fatalf("the store holds back %v, the model %v", retired, m.retired)
	}
	for _, id := range slices.Sorted(maps.Keys(m.tasks)) {
		want, have := m.tasks[id], v.Task(id)
		byNode[want.NodeID] = append(byNode[want.NodeID], id)
		if have == nil || have.Status.State != want.Status.State || have.NodeID != want.NodeID || addressOf(have) != addressOf(want) {
			t.Fatalf("task %s is %+v, should be %+v", id, have, want)
		}
	}
	for _, node := range []string{"h1", "h2"} {
		var ids []string
		for _, task := range v.TasksByNode(node) {
			ids = append(ids, task.ID)
		}
		if !slices.Equal(ids, byNode[node]) {
			t.Fatalf("node %s has %v, should have %v", node, ids, byNode[node])
		}
	}
}

// roundTrip wants restore(save(x)) to be x, indexes included.
func roundTrip(t *rapid.T, s *Store) {
	var first, second bytes.Buffer
	if err := s.Save(&first); err != nil {
		t.Fatal(err)
	}
	again := New()
	if err := again.Restore(bytes.NewReader(first.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := again.Save(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Fatalf("saved\n%s\nrestored\n%s", first.Bytes(), second.Bytes())
	}
	for _, node := range []string{"h1", "h2"} {
		if a, b := len(s.View().TasksByNode(node)), len(again.View().TasksByNode(node)); a != b {
			t.Fatalf("node %s has %d tasks, restored %d", node, a, b)
		}
	}
}

func FuzzRestore(f *testing.F) {
	good := newFixture(f)
	good.do(api.Create(service("s1", "web", 80)), api.Create(task("t1", "s1", swarm.TaskStateRunning, "10.0.1.2/24")))
	var snapshot bytes.Buffer
	if err := good.Save(&snapshot); err != nil {
		f.Fatal(err)
	}
	f.Add(snapshot.Bytes())
	f.Add(snapshot.Bytes()[:snapshot.Len()/2])
	f.Add([]byte("{\"Format\":1}\n{\"Kind\":\"task\",\"Object\":{\"ID\":\"a\"}}\n{\"Objects\":1}\n"))
	f.Add([]byte("{\"Format\":2}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := New()
		if s.Restore(bytes.NewReader(raw)) != nil {
			if s.View().Index() != 0 || s.View().Tasks() != nil {
				t.Error("a refused snapshot left something behind")
			}
			return
		}
		var first, second bytes.Buffer
		again := New()
		if err := s.Save(&first); err != nil {
			t.Fatal(err)
		}
		if err := again.Restore(bytes.NewReader(first.Bytes())); err != nil {
			t.Fatal(err)
		}
		if err := again.Save(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("saved\n%s\nrestored\n%s (%v)", first.Bytes(), second.Bytes(), err)
		}
	})
}
