package leader

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/api"
)

// TestUpdateKeepsItsFloor draws updates over a service that does not fail, with
// scaling, new leaders and nodes that obey in any order: never fewer tasks run
// than replicas less parallelism.
func TestUpdateKeepsItsFloor(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newModel(r, 4)
		replicas := rapid.IntRange(1, 10).Draw(r, "replicas")
		spec := replicatedSpec("web", uint64(replicas))
		parallelism := rapid.IntRange(1, 4).Draw(r, "parallelism")
		spec.UpdateConfig = &swarm.UpdateConfig{
			Parallelism: uint64(parallelism),
			Order:       rapid.SampledFrom([]swarm.UpdateOrder{swarm.UpdateOrderStopFirst, swarm.UpdateOrderStartFirst}).Draw(r, "order"),
			Delay:       time.Duration(rapid.IntRange(0, 3).Draw(r, "delay")) * time.Second,
		}
		id := m.create(spec)
		m.settle(time.Minute)
		floor := replicas - parallelism
		if spec.UpdateConfig.Order == swarm.UpdateOrderStartFirst {
			floor = replicas
		}
		m.committed = func() {
			if got := len(m.running(id)); got < floor {
				r.Fatalf("%d run, the floor is %d:\n%s", got, floor, m.dump(id))
			}
			if spec.UpdateConfig.Order == swarm.UpdateOrderStopFirst && m.occupied(id) > replicas {
				r.Fatalf("old and new run together:\n%s", m.dump(id))
			}
		}
		for range rapid.IntRange(1, 4).Draw(r, "updates") {
			m.update(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ForceUpdate++ })
			for range rapid.IntRange(0, 30).Draw(r, "steps") {
				switch rapid.IntRange(0, 3).Draw(r, "step") {
				case 0:
					m.plan()
				case 1:
					m.obeyOne(r)
				case 2:
					m.clock.at = m.clock.at.Add(time.Second)
				case 3:
					m.elect()
				}
			}
		}
		m.settle(time.Hour)
		m.mustRun(id, replicas)
		service := m.view().Service(id)
		if service.UpdateStatus.State != swarm.UpdateStateCompleted {
			r.Fatalf("status %+v", service.UpdateStatus)
		}
		for _, task := range m.running(id) {
			if task.SpecVersion != service.SpecVersion {
				r.Fatalf("not updated:\n%s", m.dump(id))
			}
		}
	})
}

// occupied counts the service's tasks that run, also those told to stop.
func (m *model) occupied(id string) int {
	count := 0
	for _, task := range m.view().TasksByService(id) {
		if task.Status.State == swarm.TaskStateRunning {
			count++
		}
	}
	return count
}

// obeyOne moves one task a step.
func (m *model) obeyOne(r *rapid.T) {
	var movable []*api.Task
	for _, task := range m.view().Tasks() {
		if step(task) != "" {
			movable = append(movable, task)
		}
	}
	if len(movable) > 0 {
		task := movable[rapid.IntRange(0, len(movable)-1).Draw(r, "task")]
		m.report(task, step(task))
	}
}

func TestFailedUpdateRollsBack(t *testing.T) {
	m := newModel(t, 3)
	spec := replicatedSpec("web", 4)
	spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionRollback}
	id := m.create(spec)
	m.settle(time.Minute)
	m.update(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "broken" })
	for range 10 {
		m.plan()
		for _, task := range m.view().TasksByService(id) {
			if task.Spec.ContainerSpec.Image == "broken" && task.Alive() && task.NodeID != "" {
				m.report(task, swarm.TaskStateRejected)
			}
		}
		m.obey()
	}
	m.settle(time.Hour)
	m.mustRun(id, 4)
	for _, task := range m.running(id) {
		if task.Spec.ContainerSpec.Image != spec.TaskTemplate.ContainerSpec.Image {
			t.Errorf("not rolled back:\n%s", m.dump(id))
		}
	}
	s := m.view().Service(id)
	if s.UpdateStatus.State != swarm.UpdateStateRollbackCompleted || s.PreviousSpec != nil {
		t.Errorf("status %+v", s.UpdateStatus)
	}
}

func TestFailedUpdatePausesAndTheRestGoesOn(t *testing.T) {
	m := newModel(t, 3)
	spec := replicatedSpec("web", 4)
	id := m.create(spec)
	m.settle(time.Minute)
	m.update(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "broken" })
	for range 10 {
		m.plan()
		for _, task := range m.view().TasksByService(id) {
			if task.Spec.ContainerSpec.Image == "broken" && task.Alive() && task.NodeID != "" {
				m.report(task, swarm.TaskStateFailed)
			}
		}
		m.obey()
	}
	m.mustRun(id, 3)
	if st := m.view().Service(id).UpdateStatus; st.State != swarm.UpdateStatePaused {
		t.Errorf("status %+v", st)
	}
	m.kill(m.running(id)[0].NodeID)
	m.settle(time.Second)
	if got := len(m.running(id)); got < 3 {
		t.Errorf("%d run:\n%s", got, m.dump(id))
	}
	m.update(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "good" })
	m.settle(time.Hour)
	m.mustRun(id, 4)
}
