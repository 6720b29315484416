package api

import (
	"encoding/json"
	"fmt"
)

// Action says what an Op does.
type Action string

// The actions.
const (
	ActionCreate Action = "create"
	ActionUpdate Action = "update"
	ActionDelete Action = "delete"
	// ActionStatus writes only what a node reports: of a task Status,
	// StartedAt and nothing else (a state never falls: a lower one is
	// ignored, not refused); of a node what Part says. An object that is gone
	// is skipped.
	ActionStatus Action = "status"
	// ActionRelease frees what was retired, see Release.
	ActionRelease Action = "release"
)

// Part says which fields of a node a status writes: several know of one node at the
// same time, and none may write back what it read of the others' fields.
type Part string

// The parts of a node.
const (
	// PartAll is whatever is not the node's spec, addresses in the cluster or number.
	PartAll Part = ""
	// PartReport is what the node says of itself, and that it was heard: Status,
	// DownSince, Description, DataPathAddr, RaftAddr, Capabilities, Tunnel, GossipStep.
	PartReport Part = "report"
	// PartState is whether the node is there: Status.State, DownSince and, with another
	// state, Status.Message.
	PartState Part = "state"
	// PartManager is ManagerStatus: what Raft knows.
	PartManager Part = "manager"
)

// Op is one change to one object. A Raft entry carries a list of them, which
// the state machine applies as one transaction: all or none.
type Op struct {
	Action Action
	// IfVersion, when not 0, must equal the stored object's version index.
	IfVersion uint64
	// Part limits the status of a node; other operations have none.
	Part Part
	// Object is the whole new object; for a delete only its id matters.
	Object Object
}

// Create makes an Op that adds obj; it fails when id or name is taken.
func Create(obj Object) Op { return Op{Action: ActionCreate, Object: obj} }

// Update makes an Op that replaces the object if nobody changed it since obj
// was read. An update of a task never lowers the stored Status.
func Update(obj Object) Op {
	return Op{Action: ActionUpdate, IfVersion: obj.ObjectMeta().Version.Index, Object: obj}
}

// UpdateAnyway makes an Op that replaces the object whatever its version.
func UpdateAnyway(obj Object) Op { return Op{Action: ActionUpdate, Object: obj} }

// Delete makes an Op that removes obj; removing what is gone is not an error.
func Delete(obj Object) Op { return Op{Action: ActionDelete, Object: obj} }

// Status makes an Op that writes what a node reported about obj.
func Status(obj Object) Op { return Op{Action: ActionStatus, Object: obj} }

// NodeStatus makes an Op that writes one part of what is known of a node.
func NodeStatus(part Part, n *Node) Op { return Op{Action: ActionStatus, Part: part, Object: n} }

type opJSON struct {
	Action    Action
	IfVersion uint64 `json:",omitempty"`
	Part      Part   `json:",omitempty"`
	Kind      Kind
	Object    json.RawMessage
}

// MarshalJSON writes the op with its object's kind beside it.
func (o Op) MarshalJSON() ([]byte, error) {
	raw, err := json.Marshal(o.Object)
	if err != nil {
		return nil, err
	}
	return json.Marshal(opJSON{o.Action, o.IfVersion, o.Part, o.Object.ObjectKind(), raw})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (o *Op) UnmarshalJSON(b []byte) error {
	var w opJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	obj, err := NewObject(w.Kind)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(w.Object, obj); err != nil {
		return fmt.Errorf("%s: %w", w.Kind, err)
	}
	*o = Op{w.Action, w.IfVersion, w.Part, obj}
	return nil
}

// NewObject returns an empty object of the kind, or an error for an unknown one.
func NewObject(k Kind) (Object, error) {
	switch k {
	case KindCluster:
		return &Cluster{}, nil
	case KindNode:
		return &Node{}, nil
	case KindService:
		return &Service{}, nil
	case KindTask:
		return &Task{}, nil
	case KindNetwork:
		return &Network{}, nil
	case KindRetired:
		return &Retired{}, nil
	}
	return nil, Errorf(Invalid, "unknown kind of object %q", k)
}
