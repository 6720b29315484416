package agent_test

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/overlay/endpoint"
)

// onHost puts a task into the node's own network.
func onHost(t *api.Task) *api.Task {
	t.NetworksAttachments = []swarm.NetworkAttachment{{Network: api.NodeNetwork(api.NetworkHost).Network}}
	return t
}

// TestTaskInTheNodesOwnNetwork lives as others do, and its record leads nobody to it.
func TestTaskInTheNodesOwnNetwork(t *testing.T) {
	n := newNode(t)
	n.ttl = time.Hour // nobody was told an address that has to run out
	n.restart()
	agent := onHost(task("t1", "exposed", running))
	agent.Ports = nil
	service := &api.Service{}
	service.ID, service.Spec.EndpointSpec = agent.ServiceID, &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
	n.network.set(func(w *network) { w.deaf["t1"] = true }) // the port of its image is not asked for
	n.assignAll(true, agent, service)
	n.untilState("t1", running)
	if v, there := n.table.record("t1"); !there || v.State != endpoint.Ready || len(v.Attachments) != 0 {
		t.Errorf("its record: %+v", v)
	}
	n.restart()
	n.untilState("t1", running)
	if n.count("start t1") != 1 || n.count("stop t1") != 0 {
		t.Errorf("the restart touched it:\n%v", n.all())
	}
	n.assignAll(false, wish(agent, shutdown))
	n.untilState("t1", shutdown)
	n.inOrder("start t1", "publish t1 draining", "stop t1")
}

// TestPortInTheNodesOwnNetwork waits for the port that the service names.
func TestPortInTheNodesOwnNetwork(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.deaf["t1"] = true })
	agent := onHost(task("t1", "exposed", running))
	agent.Ports = []swarm.PortConfig{{Protocol: "tcp", TargetPort: 9100, PublishedPort: 9100, PublishMode: swarm.PortConfigPublishModeHost}}
	n.assign(true, agent)
	n.until("the reason is told", func() bool {
		s, _ := n.agent.Status("t1")
		return s.State == "starting" && s.Err == "takes no requests yet: waits until 9100/tcp accepts connections"
	})
	n.network.set(func(w *network) { w.deaf["t1"] = false })
	if s := n.untilState("t1", running); len(s.PortStatus.Ports) != 1 {
		t.Errorf("its ports: %+v", s.PortStatus)
	}
}
