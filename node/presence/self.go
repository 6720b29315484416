package presence

import (
	"fmt"

	"shoal/control/api"
)

// Introduction finds what a node needs to know of itself and its cluster before it
// can take part, in its first assignment. An assignment that lacks it is an error.
func Introduction(a api.Assignment, nodeID string) (cluster *api.Cluster, self *api.Node, err error) {
	for _, op := range a.Ops {
		switch o := op.Object.(type) {
		case *api.Cluster:
			cluster = o
		case *api.Node:
			if o.ID == nodeID {
				self = o
			}
		}
	}
	if cluster == nil || self == nil {
		return nil, nil, fmt.Errorf("the first assignment does not tell of this node (%s)", nodeID)
	}
	return cluster, self, nil
}
