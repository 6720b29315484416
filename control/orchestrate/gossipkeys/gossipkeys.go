// Package gossipkeys decides when the cluster changes the key of its gossip, and how
// far a change has come: every Period, and as soon as a node was removed that had the
// present key. A change loses nothing: a node is given a new key only to read with,
// sends under it once every node can read it, and gives the old one up once none sends
// under that.
//
// Nodes that are not ready are not waited for. They get the keys that count with their
// next assignment, before they are heard in the gossip.
//
// Plan is pure; who calls it makes the keys.
package gossipkeys

import (
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate"
)

// Period is how long a key is used before a new one is made.
const Period = 12 * time.Hour

// Grace is how long the old key is at least still read after all nodes send under the
// new one: packets may be under way.
const Grace = 5 * time.Second

// Patience is how long a change waits for nodes before somebody should hear of it.
const Patience = 30 * time.Second

// Plan begins changes and brings them on; newKey makes a key.
func Plan(now time.Time, v orchestrate.View, newKey func() []byte) (p orchestrate.Plan) {
	c := v.Cluster()
	if c == nil || len(c.GossipKeys) == 0 {
		return p
	}
	g := c.GossipChange
	switch {
	case g.Step == 0:
		p.Add(step(c, now, api.GossipSettled, g.Removals, c.GossipKeys[0]))
	case len(For(c, v.Nodes())) > 0:
		// The node that reports last wakes the planner.
		if until := g.Since.Add(Patience); now.Before(until) {
			p.WakeAt(until)
		}
	case g.Phase == api.GossipInstall:
		p.Add(step(c, now, api.GossipUse, g.Removals, c.GossipKeys[1], c.GossipKeys[0]))
	case g.Phase == api.GossipUse && now.Before(g.Since.Add(Grace)):
		p.WakeAt(g.Since.Add(Grace))
	case g.Phase == api.GossipUse:
		p.Add(step(c, now, api.GossipSettled, g.Removals, c.GossipKeys[0]))
	case g.Removals == c.Removals && now.Before(g.Since.Add(Period)):
		p.WakeAt(g.Since.Add(Period))
	default:
		p.Add(step(c, now, api.GossipInstall, c.Removals, c.GossipKeys[0], newKey()))
	}
	return p
}

// For lists the names of the nodes that the cluster's change waits for, sorted; none
// where there is no change.
func For(c *api.Cluster, nodes []*api.Node) []string {
	if c == nil || c.GossipChange.Phase == api.GossipSettled {
		return nil
	}
	return Waiting(nodes, c.GossipChange.Step)
}

// Late is For once the change has waited for longer than Patience.
func Late(now time.Time, v orchestrate.View) []string {
	c := v.Cluster()
	if c == nil || now.Before(c.GossipChange.Since.Add(Patience)) {
		return nil
	}
	return For(c, v.Nodes())
}

// Waiting lists the names of the ready nodes that have not made the step, sorted.
func Waiting(nodes []*api.Node, step uint64) []string {
	var names []string
	for _, n := range nodes {
		if n.Status.State == swarm.NodeStateReady && n.GossipStep < step {
			names = append(names, n.Description.Hostname)
		}
	}
	slices.Sort(names)
	return names
}

// step gives the nodes another list of keys.
func step(c *api.Cluster, now time.Time, phase api.GossipPhase, removals uint64, keys ...[]byte) api.Op {
	next := c.Copy()
	next.GossipKeys = keys
	next.GossipChange = api.GossipChange{Step: c.GossipChange.Step + 1, Phase: phase, Since: now, Removals: removals}
	return api.Update(next)
}
