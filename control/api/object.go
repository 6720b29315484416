package api

import (
	"net/netip"
	"time"

	"github.com/moby/moby/api/types/swarm"
)

// Kind names a table of the cluster's state.
type Kind string

// The kinds of object that the cluster's state is made of.
const (
	KindCluster Kind = "cluster"
	KindNode    Kind = "node"
	KindService Kind = "service"
	KindTask    Kind = "task"
	KindNetwork Kind = "network"
	KindRetired Kind = "retired"
)

// Kinds lists every kind, in the order in which a snapshot writes them.
var Kinds = []Kind{KindCluster, KindNode, KindNetwork, KindService, KindTask, KindRetired}

// Object is anything the replicated store holds. Objects that came out of the
// store are shared and must not be changed: Copy first.
type Object interface {
	ObjectID() string
	ObjectKind() Kind
	// ObjectName is the unique name within the kind, or "" when names are not
	// unique there (tasks).
	ObjectName() string
	// ObjectMeta points at the version and times, which only the state machine sets.
	ObjectMeta() *swarm.Meta
	// CopyObject returns a deep copy.
	CopyObject() Object
}

// Cluster is the one object that describes the cluster itself. Its ID is the
// cluster's ID, its name is always "default".
type Cluster struct {
	swarm.Swarm
	// SpecVersion is the version at which Spec last changed.
	SpecVersion swarm.Version `json:",omitempty"`
	// CACert is the PEM root certificate; CAKey its PEM key, which never
	// leaves the managers.
	CACert []byte `json:",omitempty"`
	CAKey  []byte `json:",omitempty"`
	// GossipKeys are the symmetric keys of the gossip layer, 32 bytes each,
	// the primary first.
	GossipKeys [][]byte `json:",omitempty"`
	// GossipChange says how far a change of GossipKeys is.
	GossipChange GossipChange `json:"GossipChange,omitzero"`
	// Removals counts the nodes that were removed. The state machine does it, in the
	// transaction of the removal.
	Removals uint64 `json:",omitempty"`
	// TunnelKeys says which keys of encrypted networks count; zero until the
	// leader has begun the first epoch.
	TunnelKeys KeyEpochs `json:"TunnelKeys,omitzero"`
	// NextNodeNumber is the lowest number that no node has ever had.
	NextNodeNumber uint32 `json:",omitempty"`
}

// Node is a machine of the cluster.
type Node struct {
	swarm.Node
	// SpecVersion is the version at which Spec last changed.
	SpecVersion swarm.Version `json:",omitempty"`
	// Number is a small cluster-wide unique number, 1 to NodeNumberMax: addresses that
	// every node needs one of are derived from it. That of a removed node is given
	// again only when no other is left, and none of the nodes knows the old one's.
	Number uint32 `json:",omitempty"`
	// DataPathAddr is the VTEP address of the node.
	DataPathAddr netip.Addr `json:"DataPathAddr,omitzero"`
	// RaftAddr is host:port of the control listener of a manager.
	RaftAddr string `json:",omitempty"`
	// DownSince is when the node was found dead; zero unless it is down.
	DownSince time.Time `json:"DownSince,omitzero"`
	// Capabilities is what the node's kernel can do, as the node reported it.
	Capabilities Capabilities `json:"Capabilities,omitzero"`
	// Tunnel is what the node said of its encrypted tunnels.
	Tunnel Tunnel `json:"Tunnel,omitzero"`
	// GossipStep is the last step of GossipChange that the node said it has made.
	GossipStep uint64 `json:",omitempty"`
}

// NodeNumberMax is the last number that a node can have.
const NodeNumberMax = 16382

// ProbeVNI is the VXLAN identifier, the last there is, by which nodes test the
// data path between them. No network has it.
const ProbeVNI = 1<<24 - 1

// Service is a declared service.
type Service struct {
	swarm.Service
	// SpecVersion is the version at which Spec last changed. Tasks carry the
	// SpecVersion they were made from.
	SpecVersion swarm.Version `json:",omitempty"`
	// PreviousSpecVersion belongs to PreviousSpec.
	PreviousSpecVersion swarm.Version `json:",omitempty"`
}

// Task is one try at running one slot of a service on one node.
type Task struct {
	swarm.Task
	// SpecVersion is the version of the service's spec the task was made from.
	SpecVersion swarm.Version `json:",omitempty"`
	// ServiceName and Ports (with published ports filled in) are copied from
	// the service when the task is made.
	ServiceName string             `json:",omitempty"`
	Ports       []swarm.PortConfig `json:",omitempty"`
	// ServiceLabels are the labels of the service that speak to the node, as they
	// were when the task was made.
	ServiceLabels map[string]string `json:",omitempty"`
	// StartAfter holds a task at desired state ready until then (restart delay).
	StartAfter time.Time `json:"StartAfter,omitzero"`
	// StartedAt is when the task was first seen running; zero before.
	StartedAt time.Time `json:"StartedAt,omitzero"`
}

// Network is a cluster network. VNI and addresses stand where Docker keeps them
// (DriverState options, IPAMOptions); VNI repeats it as a number.
type Network struct {
	swarm.Network
	// VNI is the VXLAN network identifier, 24 bits (RFC 7348); 0 until allocated.
	VNI uint32 `json:",omitempty"`
	// Reserved are addresses, by name, that nobody is given.
	Reserved map[string]netip.Addr `json:",omitempty"`
	// Removed says that the network was removed and exists only for tasks that
	// are about to stop.
	Removed bool `json:",omitempty"`
	// NoIPv4 says that the network has IPv6 addresses only; whether it has any is
	// Spec.IPv6Enabled.
	NoIPv4 bool `json:",omitempty"`
	// Predefined marks the node-local networks host, bridge and none.
	Predefined bool `json:",omitempty"`
}

// ObjectID returns the id.
func (c *Cluster) ObjectID() string { return c.ID }

// ObjectKind returns KindCluster.
func (c *Cluster) ObjectKind() Kind { return KindCluster }

// ObjectName returns "default".
func (c *Cluster) ObjectName() string { return c.Spec.Name }

// ObjectMeta points at the version and times.
func (c *Cluster) ObjectMeta() *swarm.Meta { return &c.Meta }

// ObjectID returns the id.
func (n *Node) ObjectID() string { return n.ID }

// ObjectKind returns KindNode.
func (n *Node) ObjectKind() Kind { return KindNode }

// ObjectName returns "": node names need not be unique.
func (n *Node) ObjectName() string { return "" }

// ObjectMeta points at the version and times.
func (n *Node) ObjectMeta() *swarm.Meta { return &n.Meta }

// ObjectID returns the id.
func (s *Service) ObjectID() string { return s.ID }

// ObjectKind returns KindService.
func (s *Service) ObjectKind() Kind { return KindService }

// ObjectName returns the service's name.
func (s *Service) ObjectName() string { return s.Spec.Name }

// ObjectMeta points at the version and times.
func (s *Service) ObjectMeta() *swarm.Meta { return &s.Meta }

// ObjectID returns the id.
func (t *Task) ObjectID() string { return t.ID }

// ObjectKind returns KindTask.
func (t *Task) ObjectKind() Kind { return KindTask }

// ObjectName returns "": a task's name is made from its service, slot and id.
func (t *Task) ObjectName() string { return "" }

// ObjectMeta points at the version and times.
func (t *Task) ObjectMeta() *swarm.Meta { return &t.Meta }

// ObjectID returns the id.
func (n *Network) ObjectID() string { return n.ID }

// ObjectKind returns KindNetwork.
func (n *Network) ObjectKind() Kind { return KindNetwork }

// ObjectName returns the network's name.
func (n *Network) ObjectName() string { return n.Spec.Name }

// ObjectMeta points at the version and times.
func (n *Network) ObjectMeta() *swarm.Meta { return &n.Meta }
