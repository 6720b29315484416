package dispatch

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/rpc"
)

// attachables adds to what found makes a network for containers, and one that is
// encrypted.
func attachables(f *fixture) {
	found(f)
	open, sealed := aNetwork("open", 4099, false), aNetwork("sealed", 4100, false)
	open.Spec.Attachable, sealed.Spec.Attachable = true, true
	sealed.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay", Options: map[string]string{"encrypted": ""}}
	f.must(api.Create(open), api.Create(sealed))
}

func ask(id string, targets ...string) api.AttachRequest {
	r := api.AttachRequest{TaskID: id, ContainerID: "c-" + id, Name: "box"}
	for _, target := range targets {
		r.Networks = append(r.Networks, swarm.NetworkAttachmentConfig{Target: target, Aliases: []string{"other"}})
	}
	return r
}

// plan does to new tasks what the leader's planners do, until the test ends.
func (f *fixture) plan(t *testing.T, change func(*api.Task)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for {
			changed := f.store.Changed(api.KindTask)
			for _, task := range f.store.View().StandaloneTasks() {
				if next := task.Copy(); task.Status.State == swarm.TaskStateNew && task.Status.Err == "" {
					change(next)
					f.must(api.UpdateAnyway(next))
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
}

func TestAttach(t *testing.T) {
	f := newFixture()
	attachables(f)
	var elsewhere *rpc.NotLeaderError
	if _, err := f.Attach(t.Context(), "n1", ask("t1", "open")); !errors.As(err, &elsewhere) {
		t.Fatalf("without leadership: %v", err)
	}
	f.lead(t)
	f.plan(t, func(task *api.Task) { task.Status.State = swarm.TaskStateAssigned })
	reply, err := f.Attach(t.Context(), "n1", ask("", "name-open"))
	if err != nil || len(reply.Networks) != 1 || reply.Networks[0] != (api.AttachedNetwork{ID: "open", Name: "name-open"}) {
		t.Fatalf("a look: %+v %v", reply, err)
	}
	if n := len(f.store.View().StandaloneTasks()); n != 0 {
		t.Fatalf("a look makes %d tasks", n)
	}
	for range 2 { // the second time it is there
		if _, err := f.Attach(t.Context(), "n1", ask("t1", "name-open")); err != nil {
			t.Fatal(err)
		}
	}
	task := f.store.View().Task("t1")
	if !task.Standalone() || task.NodeID != "n1" || task.Name != "box" || task.Spec.NetworkAttachmentSpec.ContainerID != "c-t1" ||
		task.Spec.Networks[0].Target != "open" || task.Spec.Networks[0].Aliases[0] != "other" || !task.Wanted() {
		t.Errorf("made %+v", task)
	}
	if _, err := f.Attach(t.Context(), "n2", ask("t1", "open")); api.KindOf(err) != api.Forbidden {
		t.Errorf("another node's task: %v", err)
	}
	if err := f.Detach(t.Context(), "n2", "t1"); api.KindOf(err) != api.Forbidden {
		t.Errorf("another node takes it back: %v", err)
	}
	for range 2 {
		if err := f.Detach(t.Context(), "n1", "t1"); err != nil || f.store.View().Task("t1") != nil {
			t.Errorf("taken back: %v", err)
		}
	}
}

func TestAttachRefusals(t *testing.T) {
	f := newFixture()
	attachables(f)
	f.must(api.Create(aService("s", 0)), api.Create(aTask("t9", "s", "n1")))
	f.lead(t)
	f.plan(t, func(task *api.Task) { task.Status.Err = "no address left in network name-open" })
	before := len(f.store.View().Tasks())
	for name, c := range map[string]struct {
		node    string
		request api.AttachRequest
		kind    api.ErrorKind
		text    string
	}{
		"a node that is not there": {"nobody", ask("t1", "open"), api.NotFound, "node nobody not found"},
		"no network":               {"n1", ask("t1"), api.Invalid, "needs a network"},
		"unknown network":          {"n1", ask("t1", "nope"), api.NotFound, "network nope not found"},
		"for services only":        {"n1", ask("t1", "net1"), api.Forbidden, "network name-net1 is not manually attachable"},
		"the routing mesh":         {"n1", ask("t1", "ingress"), api.Forbidden, "not manually attachable"},
		"twice":                    {"n1", ask("t1", "open", "name-open"), api.Invalid, "named twice"},
		"the node's and another":   {"n1", ask("t1", "host", "open"), api.Invalid, "a container on the network host is on no other"},
		"encrypted":                {"n1", ask("t1", "sealed"), api.Forbidden, "network name-sealed is encrypted, which node host-n1 cannot do"},
		"a service's task":         {"n1", ask("t9", "open"), api.Forbidden, "is not a container of node n1"},
		"no address":               {"n1", ask("t1", "open"), api.Unavailable, "no address left in network name-open"},
	} {
		_, err := f.Attach(t.Context(), c.node, c.request)
		if err == nil || api.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v (%s)", name, err, api.KindOf(err))
		}
	}
	if after := len(f.store.View().Tasks()); after != before {
		t.Errorf("refusals leave %d tasks, there were %d", after, before)
	}
}

// TestAttachToTheNode makes the node's own network known with the first container.
func TestAttachToTheNode(t *testing.T) {
	f := newFixture()
	attachables(f)
	f.lead(t)
	f.plan(t, func(task *api.Task) { task.Status.State = swarm.TaskStateAssigned })
	for _, id := range []string{"t1", "t2"} {
		reply, err := f.Attach(t.Context(), "n1", ask(id, "host"))
		if err != nil || len(reply.Networks) != 1 || reply.Networks[0] != (api.AttachedNetwork{ID: api.NodeNetworkID("host"), Name: "host"}) {
			t.Fatalf("%s: %+v, %v", id, reply, err)
		}
		if task := f.store.View().Task(id); task.Spec.Networks[0].Target != api.NodeNetworkID("host") {
			t.Errorf("%s: %+v", id, task.Spec.Networks)
		}
	}
	if n := f.store.View().NetworkByName("host"); n == nil || !n.Predefined {
		t.Errorf("known as %+v", n)
	}
}
