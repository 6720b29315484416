package schedule

import (
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/schedule/constraint"
)

// request is what a group of like tasks asks of a node.
type request struct {
	serviceID   string
	reserve     swarm.Resources
	constraints []constraint.Constraint
	// impossible is set when the constraints do not parse.
	impossible  bool
	platforms   []swarm.Platform
	ports       []hostPort
	maxReplicas int
	// standalone says that the task is to run where somebody started it, whatever
	// the node's availability.
	standalone bool
	// encrypted says that a network of the task must be encrypted.
	encrypted bool
}

func newRequest(t *api.Task) request {
	r := request{serviceID: t.ServiceID, reserve: reservations(&t.Spec), ports: hostPorts(t.Ports), standalone: t.Standalone()}
	if p := t.Spec.Placement; p != nil {
		parsed, err := constraint.Parse(p.Constraints)
		r.constraints, r.impossible = parsed, err != nil
		r.platforms, r.maxReplicas = p.Platforms, int(p.MaxReplicas)
	}
	for i := range t.NetworksAttachments {
		r.encrypted = r.encrypted || api.Encrypted(&t.NetworksAttachments[i].Network)
	}
	return r
}

// filter is one reason for which a node may not take a task.
type filter struct {
	fits func(*request, *node) bool
	// one and many word the refusal by one node and by %d nodes.
	one, many string
	// why, where there is one, says what is wrong with a node that was refused.
	why func(*node) string
}

// filters are asked in this order; the first that refuses a node is the reason.
var filters = []filter{
	{ready, "1 node not available for new tasks", "%d nodes not available for new tasks", nil},
	{resources, "insufficient resources on 1 node", "insufficient resources on %d nodes", nil},
	{constraints, "scheduling constraints not satisfied on 1 node", "scheduling constraints not satisfied on %d nodes", nil},
	{platform, "unsupported platform on 1 node", "unsupported platform on %d nodes", nil},
	{encryption, "1 node cannot encrypt networks", "%d nodes cannot encrypt networks", cannotEncrypt},
	{ports, "host-mode port already in use on 1 node", "host-mode port already in use on %d nodes", nil},
	{maxReplicas, "max replicas per node limit exceed", "max replicas per node limit exceed", nil},
}

func ready(r *request, n *node) bool {
	return n.Status.State == swarm.NodeStateReady && (r.standalone || n.Spec.Availability == swarm.NodeAvailabilityActive)
}

func resources(r *request, n *node) bool {
	have := n.Description.Resources
	return (r.reserve.NanoCPUs == 0 || n.reserved.NanoCPUs+r.reserve.NanoCPUs <= have.NanoCPUs) &&
		(r.reserve.MemoryBytes == 0 || n.reserved.MemoryBytes+r.reserve.MemoryBytes <= have.MemoryBytes)
}

func constraints(r *request, n *node) bool {
	return !r.impossible && constraint.Match(r.constraints, n.Node)
}

func platform(r *request, n *node) bool {
	if len(r.platforms) == 0 {
		return true
	}
	have := n.Description.Platform
	for _, p := range r.platforms {
		os := p.OS == "" || strings.EqualFold(p.OS, have.OS)
		if os && (p.Architecture == "" || constraint.Arch(p.Architecture) == constraint.Arch(have.Architecture)) {
			return true
		}
	}
	return false
}

// encryption keeps a task on an encrypted network away from nodes that would have
// to send its frames in the clear.
func encryption(r *request, n *node) bool {
	can, _ := n.Capabilities.Encrypts()
	return can || !r.encrypted
}

func cannotEncrypt(n *node) string {
	_, why := n.Capabilities.Encrypts()
	return n.Description.Hostname + ": " + why
}

func ports(r *request, n *node) bool {
	for _, p := range r.ports {
		if n.ports[p] > 0 {
			return false
		}
	}
	return true
}

func maxReplicas(r *request, n *node) bool {
	return r.maxReplicas == 0 || n.services[r.serviceID] < r.maxReplicas
}

// refusals counts, by filter, the nodes that were refused.
type refusals []refusal

type refusal struct {
	count int
	why   string // of the first node, where the filter says
}

// admit says whether the node may take a task, and counts it if not.
func (r *request) admit(n *node, refused refusals) bool {
	for i := range filters {
		if filters[i].fits(r, n) {
			continue
		}
		refused[i].count++
		if filters[i].why != nil && refused[i].why == "" {
			refused[i].why = filters[i].why(n)
		}
		return false
	}
	return true
}

// explain puts the refusals into words, the most frequent reason first.
func (refused refusals) explain() string {
	var reasons []string
	for worst := refused.worst(); worst >= 0; worst = refused.worst() {
		reasons = append(reasons, filters[worst].words(refused[worst]))
		refused[worst].count = 0
	}
	if len(reasons) == 0 {
		return "no suitable node"
	}
	return "no suitable node (" + strings.Join(reasons, "; ") + ")"
}

func (f *filter) words(r refusal) string {
	words := f.one
	if r.count > 1 && strings.Contains(f.many, "%d") {
		words = fmt.Sprintf(f.many, r.count)
	}
	if r.why != "" {
		words += ": " + r.why
	}
	return words
}

func (refused refusals) worst() int {
	worst := -1
	for i, r := range refused {
		if r.count > 0 && (worst < 0 || r.count > refused[worst].count) {
			worst = i
		}
	}
	return worst
}
