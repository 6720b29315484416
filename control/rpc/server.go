package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/ca"
)

// Config is what a server needs; all but Logger and Dial must be set.
type Config struct {
	// Listener is the bound TCP port. The server closes it.
	Listener net.Listener
	// Advertise is host:port under which other nodes reach the listener.
	Advertise string
	// Source holds the node's credentials.
	Source *ca.Source
	// Handler serves HTTP/2, usually a Mux.
	Handler http.Handler
	// Dial opens a TCP connection for Raft; net.Dialer's when nil.
	Dial DialFunc
	// Logger is told of peers that were turned away; slog.Default() when nil.
	Logger *slog.Logger
}

// DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

func (d DialFunc) orDefault() DialFunc {
	if d == nil {
		return (&net.Dialer{}).DialContext
	}
	return d
}

// Server serves the control port from New until Close.
type Server struct {
	cfg      Config
	http     *http.Server
	h2       *connQueue
	slots    chan struct{}
	tls      *tls.Config
	workers  sync.WaitGroup // accept loop, handshakes, HTTP
	handlers sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]struct{} // connections in their handshake
	raft   *RaftStream
}

// New starts serving the listener.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &Server{
		cfg:   cfg,
		h2:    newConnQueue(cfg.Listener.Addr(), maxRaftBacklog),
		slots: make(chan struct{}, maxHandshakes),
		tls:   ca.ServerConfig(cfg.Source, protocolHTTP, protocolRaft),
		open:  map[net.Conn]struct{}{},
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: handshakeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, MaxConcurrentStreams: 256},
		ConnState:         s.closeLate,
		ErrorLog:          log.New(io.Discard, "", 0), // it reports only what peers do to their own connections
	}
	s.http.Protocols.SetHTTP2(true)
	s.workers.Go(s.accept)
	s.workers.Go(func() { s.http.Serve(s.h2) }) // ends when Close closes the queue
	return s
}

// Addr returns the address that the listener is bound to.
func (s *Server) Addr() net.Addr { return s.cfg.Listener.Addr() }

// Close stops the port, ends every HTTP connection and the Raft stream's
// listener, and waits for handlers and goroutines. Raft connections that were
// accepted or dialled belong to Raft.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	raft := s.raft
	for conn := range s.open {
		conn.Close()
	}
	s.mu.Unlock()
	err := s.cfg.Listener.Close()
	s.h2.Close()
	s.http.Close()
	if raft != nil {
		raft.Close()
	}
	s.workers.Wait()
	s.handlers.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// serveHTTP counts handlers, so that Close leaves none behind.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	s.handlers.Add(1)
	s.mu.Unlock()
	defer s.handlers.Done()
	s.cfg.Handler.ServeHTTP(w, r)
}

// accept takes connections until the listener is closed. A failure to accept,
// such as too many open files, is waited out.
func (s *Server) accept() {
	wait := 5 * time.Millisecond
	for {
		conn, err := s.cfg.Listener.Accept()
		if errors.Is(err, net.ErrClosed) || s.isClosed() {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			s.cfg.Logger.Error("accept on the control port", "addr", s.Addr(), "err", err)
			time.Sleep(wait)
			wait = min(2*wait, time.Second)
			continue
		}
		wait = 5 * time.Millisecond
		s.begin(conn)
	}
}

// begin starts the handshake of a connection, or drops it when too many are in
// theirs: a peer that matters tries again.
func (s *Server) begin(conn net.Conn) {
	select {
	case s.slots <- struct{}{}:
	default:
		conn.Close()
		return
	}
	if !s.track(conn) {
		conn.Close()
		<-s.slots
		return
	}
	s.workers.Go(func() {
		err := s.handshake(conn)
		s.untrack(conn)
		<-s.slots
		if err != nil {
			conn.Close()
			s.cfg.Logger.Debug("control connection turned away", "peer", conn.RemoteAddr(), "err", err)
		}
	})
}

func (s *Server) handshake(raw net.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, s.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	state := conn.ConnectionState()
	switch state.NegotiatedProtocol {
	case protocolHTTP:
		return s.h2.put(conn)
	case protocolRaft:
		return s.acceptRaft(conn, &state)
	}
	return errors.New("no protocol negotiated")
}

// acceptRaft hands a connection to Raft if the peer is a manager.
func (s *Server) acceptRaft(conn *tls.Conn, state *tls.ConnectionState) error {
	peer, ok := ca.PeerOf(state)
	if !ok || peer.Role != swarm.NodeRoleManager {
		return fmt.Errorf("raft needs the certificate of a manager, node %q has role %q", peer.NodeID, peer.Role)
	}
	s.mu.Lock()
	raft := s.raft
	s.mu.Unlock()
	if raft == nil {
		return errors.New("raft is not running on this node")
	}
	return raft.incoming.put(conn)
}

// closeLate closes a connection that http.Server took up while Close went by.
func (s *Server) closeLate(conn net.Conn, state http.ConnState) {
	if state == http.StateNew && s.isClosed() {
		conn.Close()
	}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) track(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open[conn] = struct{}{}
	return true
}

func (s *Server) untrack(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, conn)
}
