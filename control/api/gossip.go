package api

import "time"

// GossipPhase says what a change of the gossip keys is at.
type GossipPhase string

// The phases of a change: all nodes are given the new key behind the old one, then
// before it, then alone. Each begins once all nodes are done with the one before, so
// that everybody can always read what anybody sends.
const (
	// GossipSettled: there is one key.
	GossipSettled GossipPhase = ""
	// GossipInstall: nodes send under the old key and read under both.
	GossipInstall GossipPhase = "install"
	// GossipUse: nodes send under the new key and read under both.
	GossipUse GossipPhase = "use"
)

// GossipChange says how far the cluster is with changing its gossip keys.
type GossipChange struct {
	// Step counts the changes of Cluster.GossipKeys; 0 before the leader has begun to
	// count. Nodes report the last one they made.
	Step  uint64      `json:",omitempty"`
	Phase GossipPhase `json:",omitempty"`
	// Since is when the step was made.
	Since time.Time `json:"Since,omitzero"`
	// Removals is Cluster.Removals at the moment when the newest key was made: nodes
	// that were removed before never had it.
	Removals uint64 `json:",omitempty"`
}
