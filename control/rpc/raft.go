package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/ca"
)

// RaftStream is Raft's view of the control port: it accepts the connections of
// other managers and dials them. It is a raft.StreamLayer.
type RaftStream struct {
	incoming *connQueue
	dial     DialFunc
	tls      *tls.Config
}

var _ raft.StreamLayer = (*RaftStream)(nil)

// RaftStream returns a new stream, which replaces the one that an earlier call
// returned: each start of Raft on this node takes its own.
func (s *Server) RaftStream() *RaftStream {
	stream := &RaftStream{
		incoming: newConnQueue(advertised(s.cfg.Advertise), maxRaftBacklog),
		dial:     s.cfg.Dial.orDefault(),
		tls:      ca.ClientConfig(s.cfg.Source, ca.Want{Role: swarm.NodeRoleManager}, protocolRaft),
	}
	s.mu.Lock()
	old, closed := s.raft, s.closed
	s.raft = stream
	s.mu.Unlock()
	if old != nil {
		old.Close()
	}
	if closed {
		stream.Close()
	}
	return stream
}

// Accept returns the next connection of a manager, net.ErrClosed after Close.
func (r *RaftStream) Accept() (net.Conn, error) { return r.incoming.Accept() }

// Close ends Accept. The control port goes on without Raft.
func (r *RaftStream) Close() error { return r.incoming.Close() }

// Addr returns the advertised address, which is how Raft names this node.
func (r *RaftStream) Addr() net.Addr { return r.incoming.Addr() }

// Dial connects to another manager's control port within timeout, at most two
// seconds.
func (r *RaftStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 || timeout > dialTimeout {
		timeout = dialTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	raw, err := r.dial(ctx, "tcp", string(address))
	if err != nil {
		return nil, fmt.Errorf("dial manager %s for raft: %w", address, err)
	}
	conn := tls.Client(raw, r.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("dial manager %s for raft: %w", address, err)
	}
	if conn.ConnectionState().NegotiatedProtocol != protocolRaft {
		conn.Close()
		return nil, fmt.Errorf("dial manager %s for raft: peer does not speak %s", address, protocolRaft)
	}
	return conn, nil
}

// advertised is a host:port as a net.Addr.
type advertised string

// Network returns "tcp".
func (advertised) Network() string { return "tcp" }

// String returns host:port.
func (a advertised) String() string { return string(a) }
