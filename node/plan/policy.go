package plan

import (
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/swarm"

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

// publishedAt returns the addresses of this node that a published port answers at;
// everywhere says that it does at all of them. An address that the node has not is
// left out: another node may have it.
func (c *compiler) publishedAt(p api.Policy, port swarm.PortConfig) (addrs []netip.Addr, everywhere bool) {
	places := p.PublishedAt(port.PublishedPort, string(port.Protocol))
	if len(places) == 0 {
		return nil, true
	}
	for link, own := range c.in.Self.Addrs {
		for _, a := range own {
			if slices.ContainsFunc(places, func(at api.Place) bool { return at.Link == link || at.Addr == a }) {
				addrs = append(addrs, a)
			}
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), false
}

// bound returns the forward once for each address that it is taken at, or as it is.
func (c *compiler) bound(p api.Policy, port swarm.PortConfig, f lb.Forward) (out []lb.Forward) {
	addrs, everywhere := c.publishedAt(p, port)
	if everywhere {
		return []lb.Forward{f}
	}
	for _, a := range addrs {
		if a.Is4() == f.To.Addr().Is4() {
			f.At = a
			out = append(out, f)
		}
	}
	return out
}
