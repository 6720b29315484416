// Package lb owns the model of the load balancer: which front address and port
// is spread over which backends in one network namespace. It has the pure Plan,
// the Driver interface that a kernel's balancer is driven through, a faithful
// fake, and the one test suite every backend must pass.
//
// Where balancing happens: a virtual IP inside a network is balanced in the
// client task's own namespace, so the server sees the client's own address and
// replies go straight back; a published port is balanced in the ingress
// network's namespace of the node that was reached.
//
// The package never touches a kernel.
package lb

import (
	"context"
	"net/netip"
	"time"
)

// Protocol of a front.
type Protocol string

// The protocols; Any balances every packet to the address, whatever it carries.
const (
	Any  Protocol = ""
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp"
)

// Algorithm chooses the backend of a new flow.
type Algorithm string

// The algorithms. A backend that cannot do one says so in its Features.
const (
	RoundRobin         Algorithm = "rr"
	WeightedRoundRobin Algorithm = "wrr"
	LeastConn          Algorithm = "lc"
	WeightedLeastConn  Algorithm = "wlc"
	SourceHash         Algorithm = "sh"
	Maglev             Algorithm = "mh"
)

// Algorithms lists them all.
var Algorithms = []Algorithm{RoundRobin, WeightedRoundRobin, LeastConn, WeightedLeastConn, SourceHash, Maglev}

// Desired is everything to be balanced in one namespace.
type Desired struct {
	// Namespace is the path of the network namespace, "" for the node's own.
	Namespace string
	Services  []Service
	// MasqueradeFrom lists the sources whose balanced flows leave the namespace
	// with its own source address, so that replies return to it: clients that
	// the servers could not answer otherwise. Flows of all other clients keep
	// their source.
	MasqueradeFrom []netip.Prefix
}

// Front is where clients connect: the key of a Service.
type Front struct {
	Addr netip.Addr
	// Port 0 with protocol Any is every port of the address.
	Port     uint16
	Protocol Protocol
}

// Service is one front and the backends behind it.
type Service struct {
	Front
	// Name is for people: the service's name.
	Name      string
	Algorithm Algorithm // "" is rr
	// Masquerade gives every balanced flow of the service the namespace's own
	// source address. Only a front of one port can ask for it.
	Masquerade bool
	// Sticky keeps a client address at its backend for this long after its last
	// new flow, while the backend takes new flows at all; 0 does not. Whole
	// seconds, at most StickyMax.
	Sticky   time.Duration
	Backends []Backend
}

// StickyMax is the longest that a client can be kept at its backend.
const StickyMax = 7 * 24 * time.Hour

// Backend is one real server. A service without backends refuses its clients at once.
type Backend struct {
	Addr netip.Addr
	// Port is the server's port; 0 keeps the front's (only with protocol Any).
	Port   uint16
	Weight uint32 // 1 to 65535; 0 counts as 1
	// Draining keeps established flows and gets no new one.
	Draining bool
	// Task is for people: the task's name. It is not compared.
	Task string
}

// Driver programs one kind of kernel balancer. Apply takes the whole wish for a
// namespace and is free when nothing differs; it reads the kernel and applies
// the difference, additions before removals. A backend that disappears is cut:
// its flows are forgotten, so that no client waits on it (but see HandingOver).
type Driver interface {
	// Name is "ipvs" or "nft".
	Name() string
	// Read returns what the kernel has of ours in the namespace.
	Read(ctx context.Context, namespace string) (Desired, error)
	// Apply makes the kernel equal to d and returns how many objects changed.
	Apply(ctx context.Context, d Desired) (changed int, err error)
	// Supports returns nil, or why the kernel cannot do the algorithm.
	Supports(a Algorithm) error
}
