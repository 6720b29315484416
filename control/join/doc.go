// Package join owns how a machine becomes a node and stays one: it turns a join
// token and a certificate request into a node of the cluster with a certificate,
// renews certificates, and lets a new manager ask for its vote in Raft. It holds
// both ends: Server on the managers, Join and Renew on the node.
//
// It never hands out gossip keys or any other part of the cluster's state: a node
// gets those by dispatch, once it can prove who it is.
package join

import "time"

// The routes on the control port.
const (
	joinPath  = "/join"
	renewPath = "/renew"
	voterPath = "/raft/join"
)

const (
	// joinTimeout is how long Join tries, as long as Docker does.
	joinTimeout = 20 * time.Second
	// callTimeout bounds one try at one manager.
	callTimeout = 5 * time.Second
	// retryPause is what lies between two tries.
	retryPause = 250 * time.Millisecond
	// forbiddenTries is how many refusals are believed.
	forbiddenTries = 4
	// conflictTries bounds how often a node number is fought for.
	conflictTries = 16
)
