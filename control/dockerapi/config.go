package dockerapi

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// Proposer commits changes to the cluster's state.
type Proposer interface {
	// Propose commits the operations as one transaction, all or none, and
	// returns once a new View holds them. Errors are api.Error: OutOfSequence
	// when an object is no longer at the version it was read at, Conflict
	// when a name is taken, Unavailable without a leader or quorum.
	Propose(ctx context.Context, ops []api.Op) error
}

// Lifecycle makes the node part of a cluster and takes it out again.
type Lifecycle interface {
	// Init starts a new cluster with this node as its manager and returns the
	// node's id. Empty fields of the request mean the default.
	Init(ctx context.Context, req swarm.InitRequest) (nodeID string, err error)
	// Join makes the node a member of the cluster of req.RemoteAddrs.
	Join(ctx context.Context, req swarm.JoinRequest) error
	// Leave takes the node out of its cluster and forgets the cluster's state.
	Leave(ctx context.Context, force bool) error
	// Info says what the node is. Every request asks it, so it must answer at
	// once and from memory.
	Info() swarm.Info
}

// LocalNetworks are the networks that this node knows by itself: bridge, host and
// none, and on a worker those of the cluster that it takes part in (ShowAssigned).
// They are listed beside those in the store.
type LocalNetworks interface {
	// List returns the networks as inspect shows them.
	List() []network.Inspect
}

// Config is what the API needs from the rest of the house. All fields but
// LocalNetworks are required.
type Config struct {
	// Store returns this manager's copy of the cluster's state, nil while the
	// node is not a manager. Every request asks it.
	Store     func() *store.Store
	Proposer  Proposer
	Lifecycle Lifecycle
	// LocalNetworks may be nil: then only the cluster's networks are listed.
	LocalNetworks LocalNetworks
	// Now is the clock that stamps what the API starts, such as a rollback.
	Now func() time.Time
}
