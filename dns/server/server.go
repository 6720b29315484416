// Package server is the name server that tasks talk to: one listener per task,
// inside the task's namespace, all answering from the same zone, each for the
// networks of its task. What the zone does not know is forwarded, bounded in
// number and time. It owns sockets it is given and never reads the cluster's
// state.
package server

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"shoal/dns/zone"
)

// Limits of the server.
const (
	// TTL of every answer from the zone, seconds: how long a client may
	// believe a name after its task has moved, and how long a task that is to
	// stop waits for those who do.
	TTL = 2
	// Outlived is how long after an answer its addresses may be used: its TTL, its
	// way to the client, and the way of what the client sends then.
	Outlived = TTL*time.Second + 250*time.Millisecond
	// maxForwards is how many questions may wait for other servers at once, and
	// maxForwardsPerTask those of one task: none may use up what all share.
	maxForwards        = 1024
	maxForwardsPerTask = 256
	// queryTimeout bounds one question to one other server.
	queryTimeout = 2 * time.Second
	// resentment is how long a server that did not answer is asked last.
	resentment = 10 * time.Second
	// maxConnections is how many TCP connections a task may hold, and
	// idleTimeout how long one may be silent (RFC 7766, 6.2.3).
	maxConnections = 64
	idleTimeout    = 10 * time.Second
)

// Task says how the questions of one task are answered.
type Task struct {
	// Networks are the ids of the task's networks, in order.
	Networks []string
	// Servers are asked, from the task's own namespace, what the zone does not
	// know; without any the machine's are, from the machine's namespace.
	Servers []netip.AddrPort `json:",omitempty"`
	// Inside says that the machine's servers are out of the task's reach.
	Inside bool `json:",omitempty"`
	// Whole says that a name of a single label is never forwarded: the task's
	// resolver is to try its search list (an ndots of 1 or more).
	Whole bool `json:",omitempty"`
}

// Dial opens a socket to another server.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// Server answers for all tasks of a node.
type Server struct {
	zone    atomic.Pointer[zone.Zone]
	machine atomic.Pointer[upstreams]
	slots   chan struct{}
	logger  *slog.Logger
	stats   stats
}

// New returns a Server with an empty zone that forwards to nobody.
func New(logger *slog.Logger) *Server {
	s := &Server{slots: make(chan struct{}, maxForwards), logger: logger}
	s.SetZone(zone.Build(zone.Model{}))
	s.SetUpstreams(nil)
	return s
}

// SetZone replaces what the server knows; questions under way keep the old zone.
func (s *Server) SetZone(z *zone.Zone) { s.zone.Store(z) }

// Zone returns what the server knows.
func (s *Server) Zone() *zone.Zone { return s.zone.Load() }

// SetUpstreams names the machine's servers in the order to try. They are asked
// from the namespace of the process.
func (s *Server) SetUpstreams(addrs []netip.AddrPort) {
	s.machine.Store(newUpstreams(addrs, new(net.Dialer).DialContext))
}
