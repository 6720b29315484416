package leader

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/alloc"
	"shoal/control/api"
	"shoal/control/schedule"
)

// storm draws what happens to a cluster.
type storm struct {
	*model
	r        *rapid.T
	services []string
	made     int
}

func (s *storm) pick(label string, from []string) string {
	return rapid.SampledFrom(from).Draw(s.r, label)
}

func (s *storm) anyNode() string {
	return s.pick("node", []string{"n1", "n2", "n3", "n4"})
}

func (s *storm) policy() *swarm.RestartPolicy {
	delay := rapid.SampledFrom([]time.Duration{0, time.Second, 5 * time.Second}).Draw(s.r, "delay")
	return &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny, Delay: &delay}
}

func (s *storm) newService() {
	if len(s.services) >= 4 {
		return
	}
	s.made++
	name := fmt.Sprintf("s%d", s.made)
	spec := replicatedSpec(name, uint64(rapid.IntRange(0, 7).Draw(s.r, "replicas")))
	if rapid.IntRange(0, 3).Draw(s.r, "mode") == 0 {
		spec = globalSpec(name)
	}
	spec.TaskTemplate.RestartPolicy = s.policy()
	if rapid.Bool().Draw(s.r, "network") {
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "app"}}
	}
	if rapid.Bool().Draw(s.r, "port") {
		spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80}}}
	}
	spec.UpdateConfig = &swarm.UpdateConfig{
		Parallelism:   uint64(rapid.IntRange(0, 3).Draw(s.r, "parallelism")),
		Order:         rapid.SampledFrom([]swarm.UpdateOrder{"", swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst}).Draw(s.r, "order"),
		FailureAction: rapid.SampledFrom([]swarm.FailureAction{"", swarm.UpdateFailureActionContinue, swarm.UpdateFailureActionRollback}).Draw(s.r, "action"),
	}
	s.services = append(s.services, s.create(spec))
}

func (s *storm) someService(do func(id string)) {
	if len(s.services) > 0 {
		do(s.pick("service", s.services))
	}
}

func (s *storm) someTask(do func(*api.Task)) {
	var on []*api.Task
	for _, t := range s.view().Tasks() {
		n := s.view().Node(t.NodeID)
		if t.Alive() && api.Rank(t.Status.State) >= api.Rank(swarm.TaskStateAssigned) && n != nil && n.Status.State == swarm.NodeStateReady {
			on = append(on, t)
		}
	}
	if len(on) > 0 {
		do(on[rapid.IntRange(0, len(on)-1).Draw(s.r, "task")])
	}
}

func (s *storm) event() {
	switch rapid.IntRange(0, 15).Draw(s.r, "event") {
	case 0:
		s.newService()
	case 1:
		s.someService(func(id string) {
			if s.view().Service(id).Spec.Mode.Replicated != nil {
				s.scale(id, uint64(rapid.IntRange(0, 9).Draw(s.r, "scale")))
			}
		})
	case 2:
		s.someService(func(id string) {
			image := s.pick("image", []string{"a", "b", "c"})
			s.update(id, func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Image = image })
		})
	case 3:
		s.someService(func(id string) {
			s.commit(api.Delete(s.view().Service(id)))
			var left []string
			for _, other := range s.services {
				if other != id {
					left = append(left, other)
				}
			}
			s.services = left
		})
	case 4:
		s.someTask(func(t *api.Task) { s.report(t, swarm.TaskStateFailed) })
	case 5:
		s.someTask(func(t *api.Task) { s.report(t, swarm.TaskStateComplete) })
	case 6:
		s.kill(s.anyNode())
	case 7:
		s.revive(s.anyNode())
	case 8:
		to := rapid.SampledFrom([]swarm.NodeAvailability{"active", "drain", "pause"}).Draw(s.r, "availability")
		s.node(s.anyNode(), func(n *api.Node) { n.Spec.Availability = to })
	case 9:
		s.node(s.anyNode(), func(n *api.Node) {
			n.Spec.Labels = map[string]string{"zone": s.pick("zone", []string{"a", "b"})}
		})
	case 10:
		s.someService(func(id string) {
			var c []string
			if rapid.Bool().Draw(s.r, "constrained") {
				c = []string{"node.labels.zone != b"}
			}
			s.update(id, func(spec *swarm.ServiceSpec) { spec.TaskTemplate.Placement = &swarm.Placement{Constraints: c} })
		})
	case 11:
		s.elect()
	case 12:
		s.crash()
	case 14:
		s.replaceNode()
	case 15:
		s.commit(api.Release(rapid.Uint64Range(1, s.index).Draw(s.r, "release")))
	case 13:
		s.clock.at = s.clock.at.Add(time.Duration(rapid.IntRange(0, 10).Draw(s.r, "seconds")) * time.Second)
	}
}

// replaceNode removes a node for good, or has it join again.
func (s *storm) replaceNode() {
	if n := s.view().Node("n4"); n != nil {
		s.commit(api.Delete(n))
	} else {
		s.join(4)
	}
}

// crash has the leader die when a part of its plan is committed.
func (s *storm) crash() {
	if err := s.s.catchUp(context.Background()); err != nil {
		s.r.Fatalf("catch up: %v", err)
	}
	ops := s.s.round()
	if len(ops) > 0 {
		s.commit(ops[:rapid.IntRange(0, len(ops)).Draw(s.r, "committed")]...)
	}
	s.elect()
}

// calm makes every node fit again and lets everything come to rest.
func (s *storm) calm() {
	for _, n := range s.view().Nodes() {
		s.node(n.ID, func(n *api.Node) {
			n.Spec.Availability, n.Status.State, n.DownSince = swarm.NodeAvailabilityActive, swarm.NodeStateReady, time.Time{}
			n.Spec.Labels = nil
		})
	}
	s.settle(10 * time.Hour)
}

func (s *storm) checkConverged() {
	for _, id := range s.services {
		service := s.view().Service(id)
		want := len(s.view().Nodes())
		if r := service.Spec.Mode.Replicated; r != nil {
			want = int(*r.Replicas)
		}
		s.mustRun(id, want)
		slots := map[string]bool{}
		for _, t := range s.running(id) {
			slots[fmt.Sprint(t.Slot, t.Slot == 0, map[bool]string{true: t.NodeID}[t.Slot == 0])] = true
		}
		if len(slots) != want {
			s.r.Fatalf("%d slots for %d tasks:\n%s", len(slots), want, s.dump(id))
		}
	}
	for _, t := range s.view().Tasks() {
		if s.view().Service(t.ServiceID) == nil {
			s.r.Fatalf("task %s outlives its service", t.ID)
		}
	}
}

// checkFollowed compares what the session was told bit by bit with what a full
// look at the state gives.
func (s *storm) checkFollowed() {
	if a, b := s.s.alloc.Dump(), alloc.Load(s.view()).Dump(); !reflect.DeepEqual(a, b) {
		s.r.Fatalf("the allocator followed to\n%v\nbut the state is\n%v", a, b)
	}
	if a, b := s.s.sched.Dump(), schedule.Load(s.view()).Dump(); !reflect.DeepEqual(a, b) {
		s.r.Fatalf("the scheduler followed to\n%v\nbut the state is\n%v", a, b)
	}
}

func TestStorm(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := &storm{model: newModel(r, 4), r: r}
		s.network("app")
		for range rapid.IntRange(1, 40).Draw(r, "events") {
			s.event()
			if rapid.Bool().Draw(r, "plan") {
				s.plan()
				s.checkFollowed()
			}
			if rapid.Bool().Draw(r, "obey") {
				s.obey()
			}
		}
		s.calm()
		s.checkConverged()
		s.checkFollowed()
		s.elect()
		if ops := s.s.round(); len(ops) > 0 {
			r.Fatalf("a new leader finds something to do at rest: %s", describe(ops))
		}
	})
}
