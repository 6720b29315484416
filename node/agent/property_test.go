package agent_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/api"
	"shoal/node/agent"
)

// Whatever managers wish and whenever the agent restarts: reported states never
// fall, no process starts twice, and in the end everything is as wished.
func TestStatesNeverFall(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := newNode(t)
		defer n.halt()
		images := []string{"web", "web", "done", "broken", "nowhere:1"}
		wishes := map[string]*api.Task{}
		for i := range 3 {
			id := fmt.Sprintf("t%d", i)
			wishes[id] = task(id, rapid.SampledFrom(images).Draw(rt, "image"), ready)
		}
		assigned := map[string]bool{}
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			id := fmt.Sprintf("t%d", rapid.IntRange(0, 2).Draw(rt, "task"))
			switch rapid.SampledFrom([]string{"raise", "raise", "raise", "end", "restart"}).Draw(rt, "step") {
			case "raise":
				if wishes[id].DesiredState == ready && assigned[id] {
					wishes[id] = wish(wishes[id], running)
				}
				assigned[id] = true
				n.assign(false, wishes[id])
			case "end":
				wishes[id] = wish(wishes[id], shutdown)
				assigned[id] = true
				n.assign(false, wishes[id])
			case "restart":
				n.restart()
			}
		}
		for id := range assigned {
			n.until(id+" is as wished", func() bool { return asWished(n, wishes[id]) })
		}
		n.halt()
		for id := range assigned {
			checkStates(rt, n, id)
		}
	})
}

func asWished(n *node, t *api.Task) bool {
	s, here := n.agent.Status(t.ID)
	switch {
	case !here:
		return false
	case api.Terminal(s.State):
		return true
	}
	return s.State == t.DesiredState
}

func checkStates(t *rapid.T, n *node, id string) {
	before := 0
	for _, s := range n.reported(id) {
		if api.Rank(s) < before {
			t.Fatalf("task %s was reported %v", id, n.reported(id))
		}
		before = api.Rank(s)
	}
	if n.count("start "+id) > 1 {
		t.Fatalf("task %s was started twice", id)
	}
}

func FuzzLoadAssigned(f *testing.F) {
	f.Add([]byte(`{"Revision":7,"Tasks":{"t1":{"ID":"t1"}},"Networks":{},"Services":{},"Nodes":{"n1":{"ID":"n1"}}}`))
	f.Add([]byte(`{"Tasks":null}`))
	f.Add([]byte(`{"Tasks":{"t1":null}}`))
	f.Add([]byte(`{"Tasks":{"..":{"ID":".."}}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "assigned.json"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := agent.LoadAssigned(dir)
		if err != nil {
			return
		}
		for id, task := range s.Tasks {
			if task == nil || task.ID != id || filepath.Dir(filepath.Join(dir, "tasks", id)) != filepath.Join(dir, "tasks") {
				t.Errorf("took task %q", id)
			}
		}
		s.Tasks["new"], s.Networks["new"], s.Services["new"], s.Nodes["new"] = nil, nil, nil, nil
	})
}

func TestLoadAssigned(t *testing.T) {
	tests := map[string]struct {
		content string
		good    bool
	}{
		"cut off":            {`{"Tasks":{`, false},
		"no lists":           {`{"Tasks":null}`, false},
		"a task of nothing":  {`{"Tasks":{"t1":null}}`, false},
		"another's id":       {`{"Tasks":{"t1":{"ID":"t2"}}}`, false},
		"an id that escapes": {`{"Tasks":{"../t1":{"ID":"../t1"}}}`, false},
		"an empty id":        {`{"Tasks":{"":{}}}`, false},
		"nothing yet":        {`{}`, true},
		"a task":             {`{"Tasks":{"t1":{"ID":"t1"}}}`, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "assigned.json")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := agent.LoadAssigned(dir); (err == nil) != tt.good {
				t.Errorf("error is %v, want one: %v", err, !tt.good)
			}
		})
	}
	if _, err := agent.LoadAssigned(t.TempDir()); errors.Is(err, os.ErrNotExist) || err != nil {
		t.Errorf("an empty directory: %v", err)
	}
}

func TestAssignmentsOutliveTheAgent(t *testing.T) {
	n := newNode(t)
	network := &api.Network{VNI: 5000}
	network.ID = "net"
	cluster := &api.Cluster{}
	cluster.ID = "c"
	n.revision = 9
	for _, o := range []api.Object{network, cluster, task("t1", "web", swarm.TaskStateReady)} {
		if err := n.agent.Apply(api.Assignment{Revision: 9, Ops: []api.Op{{Action: api.ActionUpdate, Object: o}}}); err != nil {
			t.Fatal(err)
		}
	}
	n.restart()
	a := n.agent.Assigned()
	if a.Revision != 9 || a.Cluster == nil || a.Networks["net"] == nil || a.Networks["net"].VNI != 5000 || a.Tasks["t1"] == nil {
		t.Errorf("after a restart: %+v", a)
	}
	n.untilState("t1", ready)
}
