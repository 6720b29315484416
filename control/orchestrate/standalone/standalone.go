// Package standalone clears away the tasks that are no service's: containers that
// somebody started on a node, on an attachable network. They are never restarted
// and never moved: one that has ended is deleted, which frees its addresses, and a
// node that is down or gone takes its own with it. It is pure: no clock, no writes.
package standalone

import (
	"shoal/control/api"
	"shoal/control/orchestrate"
)

// Plan decides for the tasks that are given; those of services are left alone.
func Plan(v orchestrate.View, tasks []*api.Task) orchestrate.Plan {
	var p orchestrate.Plan
	for _, t := range tasks {
		if t.Standalone() && (!t.Alive() || orchestrate.Down(v.Node(t.NodeID))) {
			p.Add(api.Delete(t))
		}
	}
	return p
}
