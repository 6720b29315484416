package dockerapi

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// View is one consistent state of the cluster. What it returns is shared and
// must not be changed; a missing object is nil. Lists are in no promised order.
type View interface {
	// Index is the index of the last change the view holds.
	Index() uint64
	Cluster() *api.Cluster
	Node(id string) *api.Node
	Nodes() []*api.Node
	Service(id string) *api.Service
	ServiceByName(name string) *api.Service
	Services() []*api.Service
	Task(id string) *api.Task
	Tasks() []*api.Task
	TasksByService(id string) []*api.Task
	TasksByNode(id string) []*api.Task
	Network(id string) *api.Network
	NetworkByName(name string) *api.Network
	Networks() []*api.Network
	ServicesByNetwork(id string) []*api.Service
}

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

// LocalNetworks are the networks that only this node knows, such as bridge,
// host and none. They are listed beside the cluster's.
type LocalNetworks interface {
	// List returns the networks as inspect shows them.
	List() []network.Inspect
}

// Config is what the API needs from the rest of the house. All fields but
// LocalNetworks are required.
type Config struct {
	// View returns the newest state that this node holds. It is not called
	// while the node is not a manager.
	View      func() View
	Proposer  Proposer
	Lifecycle Lifecycle
	// LocalNetworks may be nil: then only the cluster's networks are listed.
	LocalNetworks LocalNetworks
	// ParseConstraints says whether placement constraints can be understood.
	ParseConstraints func([]string) error
	// Dirty says whether the task was made from another spec than the
	// service's, so that it must be replaced. node is nil when the task has none.
	Dirty func(service *api.Service, task *api.Task, node *api.Node) bool
	// CheckPools says whether a new network may have the subnets it asks for
	// beside those that the view's networks have.
	CheckPools func(view View, spec *swarm.NetworkSpec) error
	// NewJoinToken mints a join token that pins the PEM root certificate.
	NewJoinToken func(caCert []byte) (string, error)
	// Now is the clock that stamps what the API starts, such as a rollback.
	Now func() time.Time
}
