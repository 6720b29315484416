package api

import (
	"encoding/json"
	"fmt"
)

// deepCopy copies by way of JSON, which every object must survive anyway: it is
// how Raft entries and snapshots carry them.
func deepCopy[T any](in *T) *T {
	raw, err := json.Marshal(in)
	if err != nil {
		panic(fmt.Sprintf("api: %T does not marshal: %v", in, err))
	}
	out := new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		panic(fmt.Sprintf("api: %T does not unmarshal: %v", in, err))
	}
	return out
}

// Copy returns a deep copy.
func (c *Cluster) Copy() *Cluster { return deepCopy(c) }

// Copy returns a deep copy.
func (n *Node) Copy() *Node { return deepCopy(n) }

// Copy returns a deep copy.
func (s *Service) Copy() *Service { return deepCopy(s) }

// Copy returns a deep copy.
func (t *Task) Copy() *Task { return deepCopy(t) }

// Copy returns a deep copy.
func (n *Network) Copy() *Network { return deepCopy(n) }

// CopyObject returns a deep copy.
func (c *Cluster) CopyObject() Object { return c.Copy() }

// CopyObject returns a deep copy.
func (n *Node) CopyObject() Object { return n.Copy() }

// CopyObject returns a deep copy.
func (s *Service) CopyObject() Object { return s.Copy() }

// CopyObject returns a deep copy.
func (t *Task) CopyObject() Object { return t.Copy() }

// CopyObject returns a deep copy.
func (n *Network) CopyObject() Object { return n.Copy() }
