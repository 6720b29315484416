package schedule

import (
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func TestOpenPorts(t *testing.T) {
	const host, ingress = swarm.PortConfigPublishModeHost, swarm.PortConfigPublishModeIngress
	wished := []swarm.PortConfig{
		{PublishMode: host, TargetPort: 80},
		{PublishMode: host, Protocol: network.TCP, TargetPort: 81},
		{PublishMode: host, Protocol: network.UDP, TargetPort: 80, PublishedPort: 5353},
		{PublishMode: ingress, TargetPort: 82},
	}
	n := newNode()
	n.add(&api.Task{Task: swarm.Task{ID: "other", DesiredState: swarm.TaskStateRunning}, Ports: []swarm.PortConfig{
		{PublishMode: host, PublishedPort: FirstOpenPort}}})
	first := n.openPorts(wished)
	want := []uint32{FirstOpenPort + 1, FirstOpenPort + 2, 5353, 0}
	for i, p := range first {
		if p.PublishedPort != want[i] {
			t.Errorf("port %d is %d, want %d", i, p.PublishedPort, want[i])
		}
	}
	if wished[0].PublishedPort != 0 {
		t.Error("the service's own ports were changed")
	}
	if next := n.openPorts(wished)[0].PublishedPort; next != FirstOpenPort+3 {
		t.Errorf("a port is chosen again at once: %d", next)
	}
	n.lastPort = LastOpenPort
	if around := n.openPorts(wished)[0].PublishedPort; around != FirstOpenPort+1 {
		t.Errorf("after the last port comes %d", around)
	}
	if none := n.openPorts(wished[3:]); &none[0] != &wished[3] {
		t.Error("ports of the mesh are copied although nothing is to be chosen")
	}
}
