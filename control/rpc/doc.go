// Package rpc owns the one TCP port of the control plane: TLS 1.3 on it, the
// protocol negotiated in the handshake (ALPN, RFC 7301) choosing between Raft's
// byte stream and HTTP/2 with JSON bodies, and the client of both. It knows who
// the peer is and lets a route say which role may call it; errors travel with
// their kind.
//
// It never knows what the routes do, keeps no state of the cluster, and opens no
// listening socket itself: the caller brings one, bound in the namespace it wants.
package rpc

import "time"

// The protocols of the control port.
const (
	protocolHTTP = "h2"
	protocolRaft = "shoal-raft"
)

// The paces and bounds of the control port.
const (
	// dialTimeout bounds connecting, handshake included at the server's end.
	dialTimeout = 2 * time.Second
	// handshakeTimeout bounds how long an accepted connection may take to
	// say who it is.
	handshakeTimeout = 5 * time.Second
	// pingAfter is the silence after which an HTTP/2 connection is probed, and
	// pingTimeout how long the answer may take: together they are how soon a
	// dead peer is noticed.
	pingAfter   = 2 * time.Second
	pingTimeout = 2 * time.Second
	// lineTimeout bounds how long one line of a stream may take to be sent.
	lineTimeout = 10 * time.Second

	// maxHandshakes is how many connections may be in their handshake at once.
	maxHandshakes = 256
	// maxRaftBacklog is how many Raft connections may wait to be accepted.
	maxRaftBacklog = 32
	// maxBody is the largest request or answer body, and the longest line of
	// a stream: as large as the largest batch of operations may be.
	maxBody = 64 << 20
	// maxOpenBody is the largest body of a request by a peer without certificate.
	maxOpenBody = 64 << 10
)
