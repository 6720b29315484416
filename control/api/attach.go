package api

import "github.com/moby/moby/api/types/swarm"

// AttachRequest asks the leader to put a container that is no service's on
// networks. The node that asks is the one that runs it: its certificate says which.
type AttachRequest struct {
	// TaskID is the task to make; asking twice for one makes one. Without it the
	// networks are only looked at.
	TaskID string `json:",omitempty"`
	// ContainerID and Name are those of the container, for people and for names.
	ContainerID string `json:",omitempty"`
	Name        string `json:",omitempty"`
	// Networks are given by id or name, with what the container is called there.
	Networks []swarm.NetworkAttachmentConfig
}

// AttachReply says which networks these are, in their order.
type AttachReply struct {
	Networks []AttachedNetwork
}

// AttachedNetwork is a network that a container may be put on.
type AttachedNetwork struct{ ID, Name string }

// DetachRequest takes the task of an AttachRequest back.
type DetachRequest struct{ TaskID string }

// Standalone says whether the task is a container of its own, no service's: one
// that somebody started by hand on the task's node, on an attachable network.
func (t *Task) Standalone() bool {
	return t.Spec.Runtime == swarm.RuntimeNetworkAttachment
}
