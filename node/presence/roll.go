package presence

import (
	"shoal/control/api"
)

// enrol takes up which nodes the managers say there are, and returns those that they
// said there were before and do not name any more.
func (p *Presence) enrol(nodes map[string]*api.Node) (gone []string) {
	roll := make(map[string]struct{}, len(nodes))
	for id := range nodes {
		roll[id] = struct{}{}
	}
	if before := p.roll.Swap(&roll); before != nil {
		for id := range *before {
			if _, still := roll[id]; !still {
				gone = append(gone, id)
			}
		}
	}
	return gone
}

// Admit returns nil for a node that the managers have told of, and not of its removal:
// whoever else holds a certificate of the cluster takes no part in its network. It is
// api.Forbidden, and says why. Before the managers have told of any node it refuses
// all: this node looks for the others as soon as it has been told.
func (p *Presence) Admit(nodeID string) error {
	roll := p.roll.Load()
	if roll == nil {
		return api.Errorf(api.Forbidden, "this node (%s) has not been told yet which nodes the cluster has, so it cannot tell whether %s is one", p.cfg.Self.ID, nodeID)
	}
	if _, known := (*roll)[nodeID]; !known {
		return api.Errorf(api.Forbidden, "node %s is not in this cluster: it was removed, or the managers have not told this node of it yet", nodeID)
	}
	return nil
}
