package peer

import (
	"net"
	"sync"
)

// queue is a net.Listener of connections that somebody else accepted.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue() *queue {
	return &queue{conns: make(chan net.Conn, connectionsMax), done: make(chan struct{})}
}

// put hands a connection over, or says that nobody takes it.
func (q *queue) put(conn net.Conn) bool {
	select {
	case <-q.done:
		return false
	case q.conns <- conn:
		return true
	default:
		return false
	}
}

// Accept returns the next connection, net.ErrClosed after Close.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case <-q.done:
		return nil, net.ErrClosed
	case conn := <-q.conns:
		return conn, nil
	}
}

// Close ends Accept.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// drop closes what nobody accepted.
func (q *queue) drop() {
	for {
		select {
		case conn := <-q.conns:
			_ = conn.Close()
		default:
			return
		}
	}
}

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }
