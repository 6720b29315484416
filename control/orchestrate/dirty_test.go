package orchestrate_test

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/orchestrate"
	"shoal/control/orchestrate/orchestratetest"
)

func TestIsDirty(t *testing.T) {
	rows := []struct {
		name   string
		change func(*swarm.ServiceSpec)
		want   bool
	}{
		{"nothing", func(*swarm.ServiceSpec) {}, false},
		{"replicas", func(s *swarm.ServiceSpec) { n := uint64(9); s.Mode.Replicated.Replicas = &n }, false},
		{"service label", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"a": "b"} }, false},
		{"update config", func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 3} }, false},
		{"image", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "two" }, true},
		{"force", func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ }, true},
		{"network", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "app"}}
		}, true},
		{"constraint that the node meets", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.id == n1"}}
		}, false},
		{"constraint that it does not meet", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.id == n2"}}
		}, true},
		{"met constraint and another image", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Image = "two"
			s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.id == n1"}}
		}, true},
		{"max replicas", func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement = &swarm.Placement{MaxReplicas: 1} }, true},
		{"port removed", func(s *swarm.ServiceSpec) { s.EndpointSpec = nil }, true},
		{"port open that was chosen", func(s *swarm.ServiceSpec) { s.EndpointSpec.Ports[0].PublishedPort = 0 }, false},
		{"port with its defaults spelled out", func(s *swarm.ServiceSpec) {
			s.EndpointSpec.Ports[0].Protocol, s.EndpointSpec.Ports[0].PublishMode = "tcp", "ingress"
		}, false},
		{"other published port", func(s *swarm.ServiceSpec) { s.EndpointSpec.Ports[0].PublishedPort = 9090 }, true},
		{"other target port", func(s *swarm.ServiceSpec) { s.EndpointSpec.Ports[0].TargetPort = 81 }, true},
		{"port added", func(s *swarm.ServiceSpec) {
			s.EndpointSpec.Ports = append(s.EndpointSpec.Ports, swarm.PortConfig{TargetPort: 81})
		}, true},
	}
	for _, r := range rows {
		s := orchestratetest.New(1)
		s.S.Spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080}}}
		task := s.Task("a", 1, "n1", swarm.TaskStateRunning, time.Hour)
		if orchestrate.IsDirty(s.S, task, s.NodeMap["n1"]) {
			t.Errorf("%s: dirty from the start", r.name)
		}
		s.Change(r.change)
		if got := orchestrate.IsDirty(s.S, task, s.NodeMap["n1"]); got != r.want {
			t.Errorf("%s: %t", r.name, got)
		}
		// A task made now is clean, whatever changed.
		if fresh := s.Task("b", 1, "n1", swarm.TaskStateNew, 0); orchestrate.IsDirty(s.S, fresh, nil) {
			t.Errorf("%s: a new task is dirty", r.name)
		}
	}
}

func TestGivingUpAnUnplacedTaskEndsIt(t *testing.T) {
	s := orchestratetest.New(1)
	task := s.Task("a", 1, "", swarm.TaskStatePending, 0)
	op := orchestrate.Desire(s.Now, task, swarm.TaskStateShutdown)
	s.Do(orchestrate.Plan{Ops: nil})
	s.Do(orchestrate.Plan{Ops: append(orchestrate.Plan{}.Ops, op)})
	if got := s.TaskMap["a"].Status.State; got != swarm.TaskStateShutdown {
		t.Errorf("state %s", got)
	}
	if task.Status.State != swarm.TaskStatePending {
		t.Error("the shared task was changed")
	}
}
