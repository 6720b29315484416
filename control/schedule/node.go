package schedule

import (
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// A node on which a service version failed this often in this time is the last
// choice for it.
const (
	failuresTooMany = 5
	failuresWindow  = 5 * time.Minute
)

// version names a version of a service's spec.
type version struct {
	serviceID string
	spec      swarm.Version
}

type hostPort struct {
	protocol network.IPProtocol
	port     uint32
}

// node is a node with its load.
type node struct {
	*api.Node
	// known counts tasks of the node, ended ones included.
	known int
	// total and services count tasks that are meant to run and have not ended.
	total    int
	services map[string]int
	// reserved sums what tasks that may hold it have reserved.
	reserved swarm.Resources
	ports    map[hostPort]int
	// lastPort is the port that was chosen last for a spec that left it open.
	lastPort uint32
	// failures has, of each version, when its tasks failed here.
	failures map[version]map[string]time.Time
}

func newNode() *node {
	return &node{services: map[string]int{}, ports: map[hostPort]int{}, failures: map[version]map[string]time.Time{}}
}

func (n *node) add(t *api.Task)    { n.count(t, 1) }
func (n *node) remove(t *api.Task) { n.count(t, -1) }

// count enters the task into the node's load, or takes it out with sign -1.
func (n *node) count(t *api.Task, sign int) {
	n.known += sign
	if !t.Alive() {
		n.fail(t, sign)
		return
	}
	if t.Wanted() {
		n.total += sign
		if n.services[t.ServiceID] += sign; n.services[t.ServiceID] == 0 {
			delete(n.services, t.ServiceID)
		}
	}
	r := reservations(&t.Spec)
	n.reserved.NanoCPUs += int64(sign) * r.NanoCPUs
	n.reserved.MemoryBytes += int64(sign) * r.MemoryBytes
	for _, p := range hostPorts(t.Ports) {
		if n.ports[p] += sign; n.ports[p] == 0 {
			delete(n.ports, p)
		}
	}
}

func (n *node) fail(t *api.Task, sign int) {
	if t.Status.State != swarm.TaskStateFailed && t.Status.State != swarm.TaskStateRejected {
		return
	}
	v := version{t.ServiceID, t.SpecVersion}
	if sign < 0 {
		if delete(n.failures[v], t.ID); len(n.failures[v]) == 0 {
			delete(n.failures, v)
		}
		return
	}
	if n.failures[v] == nil {
		n.failures[v] = map[string]time.Time{}
	}
	n.failures[v][t.ID] = t.Status.Timestamp
}

// failing says whether the version has failed here too often lately.
func (n *node) failing(now time.Time, v version) bool {
	recent := 0
	for _, at := range n.failures[v] {
		if now.Sub(at) < failuresWindow {
			recent++
		}
	}
	return recent >= failuresTooMany
}

func reservations(spec *swarm.TaskSpec) swarm.Resources {
	if spec.Resources == nil || spec.Resources.Reservations == nil {
		return swarm.Resources{}
	}
	return *spec.Resources.Reservations
}

// hostPorts returns the fixed ports that a task needs on its node itself.
func hostPorts(ports []swarm.PortConfig) []hostPort {
	var fixed []hostPort
	for _, p := range ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost && p.PublishedPort != 0 {
			fixed = append(fixed, hostPort{protocolOf(p), p.PublishedPort})
		}
	}
	return fixed
}
