package plan

import (
	"shoal/control/api"
	"shoal/dataplane/lb"
)

// policy is what a service's labels say. A label that says nothing known counts as
// none: the managers refuse it, but a spec may be older than that.
func (c *compiler) policy(s *api.Service) api.Policy {
	p, known := c.policies[s.ID]
	if !known {
		p, _ = api.ParsePolicy(s.Spec.Labels)
		c.policies[s.ID] = p
	}
	return p
}

// weight is that of a service's tasks on a node: what the service says of the
// node, else what the node says of itself. Where the algorithm heeds none it is 1,
// so that a node's label is no change to anybody.
func (c *compiler) weight(p api.Policy, nodeID string) uint32 {
	switch lb.Algorithm(p.Algorithm) {
	case lb.RoundRobin, lb.LeastConn:
		return 1
	}
	n := c.nodes[nodeID]
	if w, given := p.Weights[nodeID]; given {
		return w
	}
	if n == nil {
		return 1
	}
	if w, given := p.Weights[n.Description.Hostname]; given {
		return w
	}
	if w, err := api.ParseWeight(n.Spec.Labels[api.LabelWeight]); err == nil {
		return w
	}
	return 1
}

// near says whether the service has a task on this node that takes something new
// and is to be preferred.
func (c *compiler) near(p api.Policy, spots []spot) bool {
	if !p.PreferLocal {
		return false
	}
	for _, r := range spots {
		if r.Owner == c.in.Self.ID && !r.rests {
			return true
		}
	}
	return false
}
