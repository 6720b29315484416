package raftnode

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// streams is a raft.StreamLayer that remembers its connections: the library
// leaves those it accepted, and those it keeps for later, open when it closes.
type streams struct {
	raft.StreamLayer
	mu     sync.Mutex
	open   map[*stream]struct{}
	closed bool
}

// stream is one connection.
type stream struct {
	net.Conn
	of *streams
}

func newStreams(layer raft.StreamLayer) *streams {
	return &streams{StreamLayer: layer, open: map[*stream]struct{}{}}
}

// Accept waits for a connection of another manager.
func (s *streams) Accept() (net.Conn, error) { return s.keep(s.StreamLayer.Accept()) }

// Dial connects to another manager.
func (s *streams) Dial(addr raft.ServerAddress, wait time.Duration) (net.Conn, error) {
	return s.keep(s.StreamLayer.Dial(addr, wait))
}

func (s *streams) keep(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	kept := &stream{Conn: conn, of: s}
	s.open[kept] = struct{}{}
	return kept, nil
}

// Close closes the connection and forgets it.
func (c *stream) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// closeAll closes every connection and lets no new one in.
func (s *streams) closeAll() {
	s.mu.Lock()
	s.closed = true
	open := s.open
	s.open = map[*stream]struct{}{}
	s.mu.Unlock()
	for c := range open {
		// The other side may have closed it already; there is nobody to tell.
		_ = c.Conn.Close()
	}
}
