package schedule

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/api"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func testNode(id string, change ...func(*api.Node)) *api.Node {
	n := &api.Node{}
	n.ID, n.Description.Hostname = id, "host-"+id
	n.Status.State, n.Spec.Availability = swarm.NodeStateReady, swarm.NodeAvailabilityActive
	n.Description.Resources = swarm.Resources{NanoCPUs: 4e9, MemoryBytes: 4 << 30}
	n.Description.Platform = swarm.Platform{OS: "linux", Architecture: "x86_64"}
	for _, c := range change {
		c(n)
	}
	return n
}

func testTask(id, service string, change ...func(*api.Task)) *api.Task {
	t := &api.Task{}
	t.ID, t.ServiceID, t.DesiredState = id, service, swarm.TaskStateRunning
	t.Status.State = swarm.TaskStatePending
	for _, c := range change {
		c(t)
	}
	return t
}

func on(node string, state swarm.TaskState) func(*api.Task) {
	return func(t *api.Task) { t.NodeID, t.Status.State, t.Status.Timestamp = node, state, noon }
}

func reserve(cpus, bytes int64) func(*api.Task) {
	return func(t *api.Task) {
		t.Spec.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{NanoCPUs: cpus, MemoryBytes: bytes}}
	}
}

func placement(p swarm.Placement) func(*api.Task) {
	return func(t *api.Task) { t.Spec.Placement = &p }
}

func hostPort8080(t *api.Task) {
	t.Ports = []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeHost}}
}

func encrypts(n *api.Node) { n.Capabilities.Encryption = []string{api.WireGuard} }

func cannot(why string) func(*api.Node) {
	return func(n *api.Node) { n.Capabilities.Missing = map[string]string{api.MissingEncryption: why} }
}

// sealed attaches the task to a network with the option.
func sealed(value string) func(*api.Task) {
	return func(t *api.Task) {
		n := swarm.Network{Spec: swarm.NetworkSpec{DriverConfiguration: &swarm.Driver{Options: map[string]string{api.EncryptedOption: value}}}}
		t.NetworksAttachments = append(t.NetworksAttachments, swarm.NetworkAttachment{Network: n})
	}
}

// run tells a scheduler of nodes and tasks and returns where each task of its
// plan went, or why it went nowhere.
func run(nodes []*api.Node, tasks ...*api.Task) map[string]string {
	s := New()
	for _, n := range nodes {
		s.SetNode(n)
	}
	for _, t := range tasks {
		s.SetTask(t)
	}
	got := map[string]string{}
	for _, op := range s.Plan(noon) {
		t := op.Object.(*api.Task)
		got[t.ID] = t.NodeID
		if t.Status.State == swarm.TaskStatePending {
			got[t.ID] = t.Status.Err
		}
	}
	return got
}

func TestFilters(t *testing.T) {
	label := func(n *api.Node) { n.Spec.Labels = map[string]string{"disk": "SSD"} }
	rows := []struct {
		name  string
		nodes []*api.Node
		tasks []*api.Task
		want  string
	}{
		{"no node", nil, nil, "no suitable node"},
		{"an encrypted network goes where it can be encrypted", []*api.Node{testNode("a", cannot("no WireGuard")), testNode("b", encrypts)},
			[]*api.Task{testTask("t", "s", sealed(""))}, "b"},
		{"nobody can encrypt", []*api.Node{testNode("a", cannot("no WireGuard")), testNode("b")},
			[]*api.Task{testTask("t", "s", sealed("true"))}, "no suitable node (2 nodes cannot encrypt networks: host-a: no WireGuard)"},
		{"one has not told", []*api.Node{testNode("a")},
			[]*api.Task{testTask("t", "s", sealed(""))}, "no suitable node (1 node cannot encrypt networks: host-a: the node has not told of its kernel yet)"},
		{"an option that is off", []*api.Node{testNode("a")}, []*api.Task{testTask("t", "s", sealed("false"))}, "a"},
		{"paused and down", []*api.Node{
			testNode("a", func(n *api.Node) { n.Spec.Availability = swarm.NodeAvailabilityPause }),
			testNode("b", func(n *api.Node) { n.Status.State = swarm.NodeStateDown })},
			[]*api.Task{testTask("t", "s")}, "no suitable node (2 nodes not available for new tasks)"},
		{"not enough memory", []*api.Node{testNode("a"), testNode("b")},
			[]*api.Task{testTask("t", "s", reserve(0, 5<<30))}, "no suitable node (insufficient resources on 2 nodes)"},
		{"cpu is reserved by a task that stops", []*api.Node{testNode("a")},
			[]*api.Task{testTask("o", "o", on("a", swarm.TaskStateRunning), reserve(3e9, 0), func(t *api.Task) { t.DesiredState = swarm.TaskStateShutdown }),
				testTask("t", "s", reserve(2e9, 0))}, "no suitable node (insufficient resources on 1 node)"},
		{"an ended task reserves nothing", []*api.Node{testNode("a")},
			[]*api.Task{testTask("o", "o", on("a", swarm.TaskStateFailed), reserve(3e9, 0)), testTask("t", "s", reserve(2e9, 0))}, "a"},
		{"constraints and resources", []*api.Node{testNode("a"), testNode("b"), testNode("c", label)},
			[]*api.Task{testTask("t", "s", placement(swarm.Placement{Constraints: []string{"node.labels.disk==ssd"}}), reserve(9e9, 0))},
			"no suitable node (insufficient resources on 3 nodes)"},
		{"two reasons", []*api.Node{testNode("a"), testNode("b"), testNode("c", label, func(n *api.Node) { n.Status.State = swarm.NodeStateDown })},
			[]*api.Task{testTask("t", "s", placement(swarm.Placement{Constraints: []string{"node.labels.disk == ssd"}}))},
			"no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)"},
		{"met constraint", []*api.Node{testNode("a"), testNode("b"), testNode("c", label)},
			[]*api.Task{testTask("t", "s", placement(swarm.Placement{Constraints: []string{"node.labels.disk == ssd"}}))}, "c"},
		{"platform", []*api.Node{testNode("a")},
			[]*api.Task{testTask("t", "s", placement(swarm.Placement{Platforms: []swarm.Platform{{OS: "linux", Architecture: "arm64"}}}))},
			"no suitable node (unsupported platform on 1 node)"},
		{"platform by its other name", []*api.Node{testNode("a")},
			[]*api.Task{testTask("t", "s", placement(swarm.Placement{Platforms: []swarm.Platform{{OS: "linux", Architecture: "amd64"}}}))}, "a"},
		{"host port", []*api.Node{testNode("a")},
			[]*api.Task{testTask("o", "o", on("a", swarm.TaskStateRunning), hostPort8080), testTask("t", "s", hostPort8080)},
			"no suitable node (host-mode port already in use on 1 node)"},
		{"max replicas", []*api.Node{testNode("a")},
			[]*api.Task{testTask("o", "s", on("a", swarm.TaskStateRunning)), testTask("t", "s", placement(swarm.Placement{MaxReplicas: 1}))},
			"no suitable node (max replicas per node limit exceed)"},
		{"a global task's own node", []*api.Node{testNode("a"), testNode("b")},
			[]*api.Task{testTask("t", "s", func(t *api.Task) { t.NodeID = "b" })}, "b"},
		{"a global task's node has no room", []*api.Node{testNode("a"), testNode("b")},
			[]*api.Task{testTask("t", "s", reserve(5e9, 0), func(t *api.Task) { t.NodeID = "b" })},
			"no suitable node (insufficient resources on 1 node)"},
	}
	for _, r := range rows {
		if r.tasks == nil {
			r.tasks = []*api.Task{testTask("t", "s")}
		}
		if got := run(r.nodes, r.tasks...)["t"]; got != r.want {
			t.Errorf("%s: got %q, want %q", r.name, got, r.want)
		}
	}
}

func TestRefusalIsWrittenOnce(t *testing.T) {
	s := New()
	s.SetTask(testTask("t", "s"))
	ops := s.Plan(noon)
	if len(ops) != 1 || ops[0].Object.(*api.Task).Status.Message != "pending task scheduling" {
		t.Fatalf("plan %v", ops)
	}
	if again := s.Plan(noon.Add(time.Hour)); len(again) != 0 {
		t.Errorf("written again: %v", again)
	}
	s.SetNode(testNode("a"))
	if ops := s.Plan(noon); len(ops) != 1 || ops[0].Object.(*api.Task).NodeID != "a" || ops[0].Object.(*api.Task).Status.Err != "" {
		t.Errorf("a new node: %v", ops)
	}
}

func TestSpread(t *testing.T) {
	zone := func(z string) func(*api.Node) {
		return func(n *api.Node) { n.Spec.Labels = map[string]string{"zone": z} }
	}
	t.Run("fewest of the service, then fewest at all", func(t *testing.T) {
		nodes := []*api.Node{testNode("a"), testNode("b"), testNode("c")}
		got := run(nodes, testTask("o1", "s", on("a", swarm.TaskStateRunning)), testTask("o2", "o", on("b", swarm.TaskStateRunning)), testTask("t", "s"))
		if got["t"] != "c" {
			t.Error(got)
		}
	})
	t.Run("a node where it fails comes last", func(t *testing.T) {
		tasks := []*api.Task{testTask("t", "s"), testTask("o", "s", on("b", swarm.TaskStateRunning))}
		for i := range 5 {
			tasks = append(tasks, testTask(fmt.Sprint("f", i), "s", on("a", swarm.TaskStateFailed)))
		}
		if got := run([]*api.Node{testNode("a"), testNode("b")}, tasks...); got["t"] != "b" {
			t.Error(got)
		}
	})
	t.Run("equal per zone", func(t *testing.T) {
		nodes := []*api.Node{testNode("a", zone("x")), testNode("b", zone("x")), testNode("c", zone("x")), testNode("d", zone("y"))}
		var tasks []*api.Task
		for i := range 6 {
			tasks = append(tasks, testTask(fmt.Sprint("t", i), "s", placement(swarm.Placement{
				Preferences: []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}}})))
		}
		count := map[string]int{}
		for _, node := range run(nodes, tasks...) {
			count[node]++
		}
		if count["d"] != 3 || count["a"] != 1 || count["b"] != 1 || count["c"] != 1 {
			t.Error(count)
		}
	})
}

// TestPlanProperties: what fits is placed, nothing is placed where it does not
// fit, and the load is even where nothing prevents it.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := New()
		nodes := map[string]*api.Node{}
		for i := range rapid.IntRange(1, 6).Draw(r, "nodes") {
			n := testNode(fmt.Sprint("n", i), func(n *api.Node) {
				n.Description.Resources.NanoCPUs = int64(rapid.IntRange(0, 6).Draw(r, "cpus"))
			})
			nodes[n.ID] = n
			s.SetNode(n)
		}
		cpus := int64(rapid.IntRange(0, 3).Draw(r, "reserve"))
		count := rapid.IntRange(1, 20).Draw(r, "tasks")
		for i := range count {
			s.SetTask(testTask(fmt.Sprint("t", i), "s", reserve(cpus, 0)))
		}
		used, refused := map[string]int64{}, 0
		for _, op := range s.Plan(noon) {
			if task := op.Object.(*api.Task); task.NodeID != "" {
				used[task.NodeID] += max(cpus, 1)
			} else {
				refused++
			}
		}
		room := int64(0)
		for id, n := range nodes {
			if cpus == 0 {
				room = int64(count)
				continue
			}
			if used[id] > n.Description.Resources.NanoCPUs {
				r.Fatalf("node %s of %d has %d", id, n.Description.Resources.NanoCPUs, used[id])
			}
			room += n.Description.Resources.NanoCPUs / cpus
		}
		if want := max(0, count-int(room)); refused != want {
			r.Fatalf("%d of %d refused, want %d", refused, count, want)
		}
		if cpus == 0 {
			loads := []int64{}
			for id := range nodes {
				loads = append(loads, used[id])
			}
			if slices.Max(loads)-slices.Min(loads) > 1 {
				r.Fatalf("uneven: %v", loads)
			}
		}
		if again := s.Plan(noon); len(again) != 0 {
			r.Fatalf("the next plan is not empty: %d", len(again))
		}
	})
}

func BenchmarkPlan1000TasksOn100Nodes(b *testing.B) {
	for b.Loop() {
		s := New()
		for i := range 100 {
			s.SetNode(testNode(fmt.Sprintf("n%03d", i)))
		}
		for i := range 1000 {
			s.SetTask(testTask(fmt.Sprintf("t%04d", i), fmt.Sprint("s", i%10)))
		}
		if len(s.Plan(noon)) != 1000 {
			b.Fatal("not all placed")
		}
	}
}

// What somebody starts on a node by hand runs there, whatever else the node takes,
// but not on a node that is down, and no two such tasks are taken for one another.
func TestStandaloneHeedsNoAvailability(t *testing.T) {
	at := func(id, node string) *api.Task {
		task := &api.Task{}
		task.ID, task.NodeID, task.DesiredState, task.Status.State = id, node, swarm.TaskStateRunning, swarm.TaskStatePending
		task.Spec.Runtime = swarm.RuntimeNetworkAttachment
		return task
	}
	s := New()
	for id, state := range map[string]swarm.NodeState{"drained": swarm.NodeStateReady, "down": swarm.NodeStateDown} {
		n := &api.Node{}
		n.ID, n.Status.State, n.Spec.Availability = id, state, swarm.NodeAvailabilityDrain
		s.SetNode(n)
	}
	sealed := at("sealed", "drained")
	sealed.NetworksAttachments = []swarm.NetworkAttachment{{}}
	sealed.NetworksAttachments[0].Network.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay", Options: map[string]string{"encrypted": ""}}
	for _, task := range []*api.Task{at("a", "drained"), sealed, at("b", "down")} {
		s.SetTask(task)
	}
	got := map[string]swarm.TaskState{}
	for _, op := range s.Plan(time.Unix(1, 0)) {
		task := op.Object.(*api.Task)
		got[task.ID] = task.Status.State
	}
	if got["a"] != swarm.TaskStateAssigned || got["b"] != swarm.TaskStatePending || got["sealed"] != swarm.TaskStatePending {
		t.Errorf("%v", got)
	}
}
