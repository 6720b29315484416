// Package keys counts the epochs of the keys that encrypted networks use: when a
// new one begins, and when the one before stops counting. The keys themselves
// are the nodes' own: each node makes its own pair for each epoch, reports the
// public half, and says when it sends to every other node under the new one. The
// old epoch ends only then, so that a change of keys loses nothing.
//
// Plan is pure. No key passes through here.
package keys

import (
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate"
)

// Period is how long the keys of an epoch are used before new ones are made.
const Period = 12 * time.Hour

// Grace is how long keys of two epochs count at least.
const Grace = 5 * time.Second

// Plan begins epochs and ends them.
func Plan(now time.Time, v orchestrate.View) (p orchestrate.Plan) {
	c := v.Cluster()
	if c == nil {
		return p
	}
	e := c.TunnelKeys
	switch {
	case e.Current == 0:
		p.Add(change(c, api.KeyEpochs{Current: 1, Floor: 1, Since: now}))
	case e.Changing() && len(Waiting(v.Nodes(), e.Current)) > 0:
		// The node that settles last wakes the planner.
	case e.Changing() && now.Before(e.Since.Add(Grace)):
		p.WakeAt(e.Since.Add(Grace))
	case e.Changing():
		p.Add(change(c, api.KeyEpochs{Current: e.Current, Floor: e.Current, Since: e.Since}))
	case now.Before(e.Since.Add(Period)):
		p.WakeAt(e.Since.Add(Period))
	default:
		p.Add(change(c, Next(e, now)))
	}
	return p
}

// Next is the beginning of the epoch after a settled one.
func Next(e api.KeyEpochs, now time.Time) api.KeyEpochs {
	return api.KeyEpochs{Current: e.Current + 1, Floor: e.Current, Since: now}
}

// Waiting lists the names of the nodes that do not yet send under the epoch's
// keys, sorted: of those that are ready and can encrypt at all.
func Waiting(nodes []*api.Node, epoch uint64) []string {
	var names []string
	for _, n := range nodes {
		can, _ := n.Capabilities.Encrypts()
		if can && n.Status.State == swarm.NodeStateReady && n.Tunnel.Settled < epoch {
			names = append(names, n.Description.Hostname)
		}
	}
	slices.Sort(names)
	return names
}

func change(c *api.Cluster, e api.KeyEpochs) api.Op {
	next := c.Copy()
	next.TunnelKeys = e
	return api.Update(next)
}
