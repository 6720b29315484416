package api

import (
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"
)

// Assignment is what a manager streams to a node: first its whole set (Full),
// then differences. The set holds the node's tasks, the networks they use, the
// services the node must be able to reach (those on its networks and those with
// a port in the routing mesh) without their task templates, every node of the
// cluster, and the cluster with gossip keys but without CA key and join tokens.
type Assignment struct {
	// Full says that everything not in Ops is to be dropped.
	Full bool `json:",omitempty"`
	// Revision is the store index the set is current for.
	Revision uint64
	Ops      []Op
	// Confirm asks the node to report its level as soon as it has reached this
	// revision.
	Confirm bool `json:",omitempty"`
	// Heartbeat is how often the node must report, or it is counted dead
	// after three missed ones.
	Heartbeat time.Duration `json:",omitempty"`
}

// Report is what a node tells the managers: that it lives, and what changed.
type Report struct {
	NodeID string
	// Node is set on the first report of a session and when it changed.
	Node *NodeReport `json:",omitempty"`
	// Tasks holds the newest status of each task that changed.
	Tasks []TaskReport `json:",omitempty"`
	// Level is the revision up to which the node has put everything into effect:
	// nothing that was gone by then is left on it.
	Level uint64 `json:",omitempty"`
	// Beyond is set while some places of the node's network are not in order.
	Beyond *Beyond `json:",omitempty"`
}

// Beyond is a level above the node's own, which counts for all networks but some:
// by their ids, or by the names of their namespaces for networks that the node was
// told to take down (see NamespaceName).
type Beyond struct {
	Level uint64
	But   []string
}

// Covers says whether the level counts for a network.
func (b *Beyond) Covers(networkID string) bool {
	return b != nil && !slices.Contains(b.But, networkID) && !slices.Contains(b.But, NamespaceName(networkID))
}

// NamespaceName is the file name of a network's namespace on every node.
func NamespaceName(networkID string) string { return "net-" + networkID[:min(len(networkID), 12)] }

// NodeReport is how a node describes itself.
type NodeReport struct {
	Description swarm.NodeDescription
	// Addr is the advertised address, DataPathAddr the VTEP's, RaftAddr
	// host:port of the control listener (managers only).
	Addr, DataPathAddr, RaftAddr string
	// Message says what is wrong with the node, "" when nothing is.
	Message string `json:",omitempty"`
	// Capabilities is what the node's kernel can do.
	Capabilities Capabilities `json:"Capabilities,omitzero"`
	// Tunnel holds the node's public keys for encrypted networks.
	Tunnel Tunnel `json:"Tunnel,omitzero"`
	// GossipStep is the last step of the cluster's GossipChange that the node made.
	GossipStep uint64 `json:",omitempty"`
}

// TaskReport is the status of one task.
type TaskReport struct {
	TaskID string
	Status swarm.TaskStatus
}
