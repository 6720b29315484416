package api

import (
	"net/netip"

	"github.com/moby/moby/api/types/swarm"
)

// Retired is what an object gave up and nobody may be given yet: some node may
// still know it under its old meaning. The state machine makes it, in the
// transaction in which a service, task, network or node gives something up, so its
// version is the moment of that. A release (see Release) takes it away, once every
// node has put a later state into effect.
type Retired struct {
	// ID is the former owner's, and the version at which it gave this up.
	ID string
	swarm.Meta
	// Addresses are virtual IPs or a task's addresses.
	Addresses []RetiredAddress `json:",omitempty"`
	// Network is a removed network, whose subnets and VNI are meant. Tasks that
	// are about to stop still work on it.
	Network *Network `json:",omitempty"`
	// Number is that of a removed node.
	Number uint32 `json:",omitempty"`
}

// RetiredAddress is an address in a network.
type RetiredAddress struct {
	NetworkID string
	Addr      netip.Addr
}

// ObjectID returns the id.
func (r *Retired) ObjectID() string { return r.ID }

// ObjectKind returns KindRetired.
func (r *Retired) ObjectKind() Kind { return KindRetired }

// ObjectName returns "": what is retired has no name, its name is free.
func (r *Retired) ObjectName() string { return "" }

// ObjectMeta points at the version and times.
func (r *Retired) ObjectMeta() *swarm.Meta { return &r.Meta }

// Copy returns a deep copy.
func (r *Retired) Copy() *Retired { return deepCopy(r) }

// CopyObject returns a deep copy.
func (r *Retired) CopyObject() Object { return r.Copy() }

// Release makes an Op that frees everything that was retired up to that version,
// apart from networks that a live task is still attached to.
func Release(upTo uint64) Op {
	level := &Retired{ID: "release"}
	level.Version.Index = upTo
	return Op{Action: ActionRelease, Object: level}
}
