package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
)

// Underlay is the network between the hosts. Hosts on different sides do not
// hear each other: packets vanish, streams stall and go on when the sides meet
// again, as TCP would. Streams of a host that has lost its power stall for ever,
// those of a killed process are reset.
type Underlay struct {
	mu      sync.Mutex
	side    map[netip.Addr]int
	off     map[netip.Addr]bool
	conns   map[*stream]struct{}
	changed chan struct{} // closed and replaced when hosts can meet again
	loss    float64
	rng     *rand.Rand
	flushes sync.WaitGroup
}

// stalledBytes is what a stream takes while nobody hears it: beyond it the
// stream breaks, as when a socket's buffer is full for too long.
const stalledBytes = 4 << 20

var errUnreachable = errors.New("the host cannot be reached")

// NewUnderlay returns a network in which everyone hears everyone.
func NewUnderlay(rng *rand.Rand) *Underlay {
	return &Underlay{
		side: map[netip.Addr]int{}, off: map[netip.Addr]bool{}, conns: map[*stream]struct{}{},
		changed: make(chan struct{}), rng: rng,
	}
}

// cutLocked says whether nothing gets from one host to the other.
func (u *Underlay) cutLocked(a, b netip.Addr) bool {
	return u.off[a] || u.off[b] || u.side[a] != u.side[b]
}

// Reachable says whether two hosts hear each other.
func (u *Underlay) Reachable(a, b netip.Addr) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.cutLocked(a, b)
}

// Split puts the hosts on a side of their own.
func (u *Underlay) Split(side int, hosts ...netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, h := range hosts {
		u.side[h] = side
	}
}

// Heal brings all sides together; what stalled goes on.
func (u *Underlay) Heal() {
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.side)
	u.wakeLocked()
}

func (u *Underlay) wakeLocked() {
	close(u.changed)
	u.changed = make(chan struct{})
	for c := range u.conns {
		if !u.cutLocked(c.own, c.peer) {
			u.flushes.Go(c.flush)
		}
	}
}

// SetLoss makes a share of all packets, 0 to 1, vanish.
func (u *Underlay) SetLoss(share float64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.loss = share
}

// Off takes a host off the network; with reset its peers are told at once.
func (u *Underlay) Off(host netip.Addr, reset bool) {
	u.mu.Lock()
	u.off[host] = true
	var ends []*stream
	for c := range u.conns {
		if c.own == host || reset && c.peer == host {
			ends = append(ends, c)
		}
	}
	u.mu.Unlock()
	for _, c := range ends {
		if reset {
			_ = c.Close() // the other side sees what a dead process leaves
		}
	}
}

// On brings a host back.
func (u *Underlay) On(host netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.off, host)
	u.wakeLocked()
}

// DropStreams resets every stream of a host, as when it has been cut off for
// longer than anybody's patience.
func (u *Underlay) DropStreams(host netip.Addr) {
	u.mu.Lock()
	var ends []*stream
	for c := range u.conns {
		if c.own == host || c.peer == host {
			ends = append(ends, c)
		}
	}
	u.mu.Unlock()
	for _, c := range ends {
		_ = c.Close()
	}
}

// Wait returns when nothing that stalled is being delivered any more.
func (u *Underlay) Wait() { u.flushes.Wait() }

// Dialer returns how a host opens streams: from its own address, and waiting
// like TCP where nobody answers.
func (u *Underlay) Dialer(own netip.Addr) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", addr, err)
		}
		for {
			u.mu.Lock()
			cut, changed := u.cutLocked(own, to.Addr()), u.changed
			u.mu.Unlock()
			if !cut {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, fmt.Errorf("dial %s from %s: %w: %w", addr, own, errUnreachable, ctx.Err())
			}
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: own.AsSlice()}}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return u.track(conn, own, to.Addr()), nil
	}
}

// Listen opens a host's stream listener.
func (u *Underlay) Listen(at netip.AddrPort) (net.Listener, error) {
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return nil, err
	}
	return listener{l, u, at.Addr()}, nil
}

type listener struct {
	net.Listener
	u   *Underlay
	own netip.Addr
}

// Accept returns the next stream.
func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.u.track(conn, l.own, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()), nil
}

func (u *Underlay) track(conn net.Conn, own, peer netip.Addr) net.Conn {
	s := &stream{Conn: conn, u: u, own: own, peer: peer}
	u.mu.Lock()
	u.conns[s] = struct{}{}
	u.mu.Unlock()
	return s
}

// stream is one end of a TCP connection between two hosts.
type stream struct {
	net.Conn
	u         *Underlay
	own, peer netip.Addr

	mu      sync.Mutex
	pending []byte // written while nobody heard it
}

// Write delivers at once, or keeps the bytes until the hosts meet again.
func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 && s.u.Reachable(s.own, s.peer) {
		return s.Conn.Write(b)
	}
	if len(s.pending)+len(b) > stalledBytes {
		return 0, fmt.Errorf("write to %s: %w", s.peer, errUnreachable)
	}
	s.pending = append(s.pending, b...)
	return len(b), nil
}

func (s *stream) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) == 0 || !s.u.Reachable(s.own, s.peer) {
		return
	}
	_, _ = s.Conn.Write(s.pending) // a stream that broke meanwhile tells its reader
	s.pending = nil
}

// Close ends the stream. The far end hears of it only if it hears anything: the
// kernel's own farewell cannot be held back, which makes a cut look shorter to
// whoever waits on a read, never longer.
func (s *stream) Close() error {
	s.u.mu.Lock()
	delete(s.u.conns, s)
	s.u.mu.Unlock()
	return s.Conn.Close()
}

// Packets opens a host's datagram socket.
func (u *Underlay) Packets(at netip.AddrPort) (net.PacketConn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	_ = c.SetReadBuffer(2 << 20) // what the kernel grants will do
	return packets{c, u, at.Addr()}, nil
}

type packets struct {
	net.PacketConn
	u   *Underlay
	own netip.Addr
}

// WriteTo sends or loses a packet.
func (p packets) WriteTo(b []byte, to net.Addr) (int, error) {
	if p.u.loses(p.own, to.(*net.UDPAddr).AddrPort().Addr().Unmap()) {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, to)
}

func (u *Underlay) loses(a, b netip.Addr) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.cutLocked(a, b) || u.loss > 0 && u.rng.Float64() < u.loss
}
