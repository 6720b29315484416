// Package endpoint owns the table of endpoints: which task answers at which
// address behind which VTEP, and whether it takes new connections. Every record
// has one owner, the node that runs the task; only the owner writes it, each
// time with its next own sequence number, so tables merge in any order to the
// same result (a last-writer-wins map per owner, without clocks).
//
// The package never opens a socket, reads a clock or knows about Serf.
package endpoint

import (
	"fmt"
	"net/netip"
)

// State says what others may send to an endpoint.
type State uint8

// The states of an endpoint. One that a later version wrote is kept as it is, and
// treated like Starting.
const (
	// Ready endpoints take new connections and appear in names.
	Ready State = iota
	// Draining endpoints keep their connections and get no new one.
	Draining
	// Starting endpoints have their place on their networks, so that whom they
	// ask can answer, and nobody is sent to them yet.
	Starting
)

// Counts reports whether an endpoint takes part in its service: it takes, or has
// taken, connections.
func (s State) Counts() bool { return s == Ready || s == Draining }

// String is the state as people read it.
func (s State) String() string {
	switch s {
	case Ready:
		return "ready"
	case Draining:
		return "draining"
	case Starting:
		return "starting"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Record is one task's presence on the overlay, or a tombstone.
type Record struct {
	// Owner is the node id of the one writer.
	Owner string
	// Key is unique within the owner: the task id, or "node" for the node itself.
	Key string
	// Seq is the owner's sequence number at this write, from 1, never reused.
	Seq uint64
	// Epoch is the owner's incarnation: a node that lost its disk starts a
	// higher one, and records of lower epochs are void.
	Epoch uint64
	// Deleted marks a tombstone; Value is empty then.
	Deleted bool  `json:",omitempty"`
	Value   Value `json:",omitzero"`
}

// Value is what a record says.
type Value struct {
	State State
	// ServiceID, ServiceName, TaskName (web.3), Slot and ContainerID (64 hex)
	// are empty for the node's own record.
	ServiceID   string `json:",omitempty"`
	ServiceName string `json:",omitempty"`
	TaskName    string `json:",omitempty"`
	Slot        int    `json:",omitempty"`
	ContainerID string `json:",omitempty"`
	Hostname    string `json:",omitempty"`
	// VTEP is the underlay address that frames for the endpoint go to.
	VTEP netip.Addr
	// Ports are what the task publishes or exposes, for SRV answers.
	Ports []Port `json:",omitempty"`
	// Attachments has one entry per network.
	Attachments []Attachment `json:",omitempty"`
	// HidesClients says, in a node's own record, that its kernel cannot lead
	// replies back to the node that a client of a published port entered by, so
	// that everyone must hide clients behind the entry node's address.
	HidesClients bool `json:",omitempty"`
	// Later is what a later version of Shoal says beyond this, in its encoding.
	Later []byte `json:",omitempty"`
}

// Port is one port of an endpoint.
type Port struct {
	Name     string `json:",omitempty"`
	Protocol string
	Port     uint16
}

// Attachment is an endpoint's place on one network.
type Attachment struct {
	NetworkID string
	MAC       string // 48 bits, aa:bb:cc:dd:ee:ff
	Addrs     []netip.Addr
	Aliases   []string `json:",omitempty"`
}
