// Package dispatch owns the talk between the leader and the nodes. Each node
// gets its set of assignments (see api.Assignment), first whole and then as
// differences; the nodes' reports become batched status operations; a node that
// stays silent is declared down. The package holds both ends: Dispatcher on the
// leader and Client on the node.
//
// It never decides what should run or where, and never writes anything but the
// status of nodes and of the tasks that are theirs.
package dispatch

import "time"

// The paces and bounds of dispatch.
const (
	// DefaultHeartbeat is how often a node reports unless the cluster says otherwise.
	DefaultHeartbeat = time.Second
	// missed is how many heartbeats in a row a node may miss, doubled for
	// nodes that have not been heard since the leader took over.
	missed = 3
	// settle is how long changes are collected before a node is told.
	settle = 20 * time.Millisecond
	// batchWindow and batchSize bound how long and how many status operations
	// are collected into one proposal.
	batchWindow = 20 * time.Millisecond
	batchSize   = 1000
	// reportQueue is how many reports may wait for the batch to be made.
	reportQueue = 1024
	// subscription is how many commits the dispatcher may lag behind before
	// it computes every set anew.
	subscription = 1024
)
