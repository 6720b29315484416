package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// peers keeps idle ProtocolPull streams, so that a request to a member that was
// asked before costs no handshake.
type peers struct {
	net     *transport
	timeout time.Duration

	mu     sync.Mutex
	idle   map[string]net.Conn // by node, at most one each
	order  []string            // oldest first
	closed bool
}

// idleMax bounds the idle streams kept.
const idleMax = 64

func newPeers(t *transport, timeout time.Duration) *peers {
	return &peers{net: t, timeout: timeout, idle: map[string]net.Conn{}}
}

// call sends one request to a node and reads its answer.
func (p *peers) call(ctx context.Context, node, addr string, kind byte, body []byte) (byte, []byte, error) {
	if conn := p.take(node, addr); conn != nil {
		gotKind, got, err := p.exchange(ctx, conn, kind, body)
		if err == nil {
			p.put(node, conn)
			return gotKind, got, nil
		}
		// The other side may have closed it while it lay idle; all requests may
		// be repeated, so try a fresh one.
		_ = conn.Close()
	}
	conn, err := p.net.dial(ctx, ProtocolPull, node, addr)
	if err != nil {
		return 0, nil, err
	}
	gotKind, got, err := p.exchange(ctx, conn, kind, body)
	if err != nil {
		return 0, nil, errors.Join(fmt.Errorf("ask gossip peer %s: %w", node, err), conn.Close())
	}
	p.put(node, conn)
	return gotKind, got, nil
}

func (p *peers) exchange(ctx context.Context, conn net.Conn, kind byte, body []byte) (byte, []byte, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetDeadline(deadline(ctx, p.timeout)); err != nil {
		return 0, nil, err
	}
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	if err := writeFrame(conn, kind, body); err != nil {
		return 0, nil, err
	}
	got, answer, err := readFrame(conn)
	if err == nil && got == kindRefused {
		return 0, nil, fmt.Errorf("it says: %q", answer)
	}
	return got, answer, err
}

// deadline is that of ctx, or the timeout from now where that is sooner.
func deadline(ctx context.Context, timeout time.Duration) time.Time {
	at := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(at) {
		return d
	}
	return at
}

// take returns the idle stream of a node, nil if there is none to that address.
func (p *peers) take(node, addr string) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn := p.idle[node]
	if conn == nil {
		return nil
	}
	p.forget(node)
	if conn.RemoteAddr().String() != addr {
		_ = conn.Close()
		return nil
	}
	return conn
}

func (p *peers) put(node string, conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.idle[node] != nil {
		_ = conn.Close()
		return
	}
	if len(p.order) >= idleMax {
		oldest := p.order[0]
		_ = p.idle[oldest].Close()
		p.forget(oldest)
	}
	p.idle[node] = conn
	p.order = append(p.order, node)
}

func (p *peers) forget(node string) {
	delete(p.idle, node)
	for i, n := range p.order {
		if n == node {
			p.order = append(p.order[:i], p.order[i+1:]...)
			return
		}
	}
}

// close ends all idle streams; later ones are closed after their request.
func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, conn := range p.idle {
		_ = conn.Close()
	}
	clear(p.idle)
	p.order = nil
}
