// Package server is the name server that tasks talk to: one listener per task,
// inside the task's namespace, all answering from the same zone, each for the
// networks of its task. What the zone does not know is forwarded to the node's
// own name servers, bounded in number and time. It owns sockets it is given and
// never reads the cluster's state.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"shoal/dns/zone"
)

// Limits of the server.
const (
	// TTL of every answer from the zone, seconds: how long a client may
	// believe a name after its task has moved.
	TTL = 5
	// maxForwards is how many queries may wait for outside servers at once.
	maxForwards = 1024
	// queryTimeout bounds one question to one outside server.
	queryTimeout = 2 * time.Second
	// maxUpstreams is how many outside servers are tried, as resolv.conf(5) has it.
	maxUpstreams = 3
)

// Server answers for all tasks of a node.
type Server struct {
	zone      atomic.Pointer[zone.Zone]
	upstreams atomic.Pointer[[]string]
	slots     chan struct{}
	logger    *slog.Logger
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)

	stats Stats
}

// Stats count questions since the start.
type Stats struct {
	Local, Forwarded, Refused, Failed atomic.Uint64
}

// New returns a Server with an empty zone that forwards to nobody.
func New(logger *slog.Logger) *Server {
	s := &Server{slots: make(chan struct{}, maxForwards), logger: logger, dial: (&net.Dialer{}).DialContext}
	s.SetZone(zone.Build(zone.Model{}))
	s.SetUpstreams(nil)
	return s
}

// SetZone replaces what the server knows; questions under way keep the old zone.
func (s *Server) SetZone(z *zone.Zone) { s.zone.Store(z) }

// Zone returns what the server knows.
func (s *Server) Zone() *zone.Zone { return s.zone.Load() }

// SetUpstreams names the outside servers, host:port, in the order to try.
func (s *Server) SetUpstreams(addrs []string) {
	addrs = addrs[:min(len(addrs), maxUpstreams)]
	s.upstreams.Store(&addrs)
}

// Counts returns the server's counters.
func (s *Server) Counts() *Stats { return &s.stats }

// Listener is one task's name server.
type Listener struct {
	udp, tcp *dns.Server
	done     sync.WaitGroup
}

// Serve answers on the sockets for a client on the networks named, until Close.
// It takes over both sockets.
func (s *Server) Serve(udp net.PacketConn, tcp net.Listener, networks []string) *Listener {
	h := handler{s, networks}
	l := &Listener{
		udp: &dns.Server{PacketConn: udp, Handler: h},
		tcp: &dns.Server{Listener: tcp, Handler: h},
	}
	for _, srv := range []*dns.Server{l.udp, l.tcp} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		l.done.Add(1)
		go func() {
			defer l.done.Done()
			if err := srv.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
				s.logger.Error("a task's name server stopped", "error", err)
			}
		}()
		<-started
	}
	return l
}

// Close ends the listener and its sockets.
func (l *Listener) Close() error {
	err := errors.Join(l.udp.Shutdown(), l.tcp.Shutdown())
	l.done.Wait()
	return err
}
