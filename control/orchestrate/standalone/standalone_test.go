package standalone

import (
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate/orchestratetest"
)

func task(node string, desired, state swarm.TaskState) *api.Task {
	t := &api.Task{}
	t.ID, t.NodeID, t.DesiredState, t.Status.State = "t", node, desired, state
	t.Spec.Runtime = swarm.RuntimeNetworkAttachment
	return t
}

func TestPlan(t *testing.T) {
	const running = swarm.TaskStateRunning
	for name, test := range map[string]struct {
		task *api.Task
		gone bool
	}{
		"runs":                    {task("n1", running, running), false},
		"waits for an address":    {task("n1", running, swarm.TaskStateNew), false},
		"ended well":              {task("n1", running, swarm.TaskStateComplete), true},
		"failed":                  {task("n1", running, swarm.TaskStateFailed), true},
		"was refused by its node": {task("n1", running, swarm.TaskStateRejected), true},
		"on a node that is down":  {task("down", running, running), true},
		"on a node that is gone":  {task("nowhere", running, running), true},
	} {
		st := orchestratetest.New(1)
		down := &api.Node{}
		down.ID, down.Status.State = "down", swarm.NodeStateDown
		st.NodeMap["down"] = down
		ops := Plan(st, []*api.Task{test.task}).Ops
		if gone := len(ops) == 1 && ops[0].Action == api.ActionDelete; gone != test.gone || len(ops) > 1 {
			t.Errorf("%s: %+v", name, ops)
		}
	}
	ofService := task("nowhere", running, swarm.TaskStateFailed)
	ofService.Spec.Runtime = ""
	if ops := Plan(orchestratetest.New(1), []*api.Task{ofService}).Ops; len(ops) != 0 {
		t.Errorf("a service's task: %+v", ops)
	}
}
