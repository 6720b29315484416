package rpc

import (
	"errors"
	"net"
	"sync"
)

// connQueue is a net.Listener of connections that somebody else accepted.
type connQueue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newConnQueue(addr net.Addr, backlog int) *connQueue {
	return &connQueue{addr: addr, conns: make(chan net.Conn, backlog), done: make(chan struct{})}
}

// put hands over a connection; on an error it still belongs to the caller.
func (q *connQueue) put(conn net.Conn) error {
	select {
	case <-q.done:
		return net.ErrClosed
	default:
	}
	select {
	case q.conns <- conn:
		q.dropIfClosed()
		return nil
	default:
		return errors.New("too many connections wait to be accepted")
	}
}

// Accept returns the next connection, net.ErrClosed after Close.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case <-q.done:
		return nil, net.ErrClosed
	case conn := <-q.conns:
		return conn, nil
	}
}

// Close ends Accept and closes the connections that nobody accepted.
func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	q.dropIfClosed()
	return nil
}

// dropIfClosed closes what waits in a closed queue. put and Close both call it,
// so that a connection put while Close runs is not forgotten.
func (q *connQueue) dropIfClosed() {
	select {
	case <-q.done:
	default:
		return
	}
	for {
		select {
		case conn := <-q.conns:
			conn.Close()
		default:
			return
		}
	}
}

// Addr returns the address of the listener behind the queue.
func (q *connQueue) Addr() net.Addr { return q.addr }
