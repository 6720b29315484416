package netview

import (
	"time"

	"shoal/control/api"
	"shoal/overlay/gossip"
)

// Gossip is how well the nodes' tables agree, and how far the cluster is with
// changing the keys of its gossip.
type Gossip struct {
	gossip.Stats
	Keys GossipKeys
}

// GossipKeys is a change of the gossip keys.
type GossipKeys struct {
	// Phase is "settled" where no change goes on, "install" while nodes are given the
	// new key to read with, "use" while they begin to send under it; "" where the
	// leader has not begun to count.
	Phase string
	// Step counts the steps of all changes; Made is the last one that this node made.
	Step, Made uint64
	// Since is when the step began.
	Since time.Time `json:"Since,omitzero"`
	// Waiting are the nodes that the step waits for; nil where this node does not know.
	Waiting []string
}

// GossipTables reads the gossip and its keys.
func (s *Sources) GossipTables() Gossip {
	out := Gossip{Stats: s.Gossip()}
	c := s.GossipChange
	if c.Step == 0 {
		return out
	}
	out.Keys = GossipKeys{Phase: string(c.Phase), Step: c.Step, Since: c.Since}
	if c.Phase == api.GossipSettled {
		out.Keys.Phase = "settled"
	}
	if s.GossipStep != nil {
		out.Keys.Made = s.GossipStep()
	}
	if s.GossipWaits != nil {
		out.Keys.Waiting = append([]string{}, s.GossipWaits()...)
	}
	return out
}
