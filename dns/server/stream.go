package server

import (
	"net"
	"time"

	"github.com/miekg/dns"
)

// accept takes TCP connections, as many as a task may hold at once.
func (l *Listener) accept() {
	for {
		conn, err := l.tcp.AcceptTCP()
		if err != nil {
			if l.ending.Load() {
				return
			}
			l.complain("accept a connection", err)
			continue
		}
		select {
		case l.conns <- struct{}{}:
		default:
			l.s.stats.count(refused, dns.TypeNone, time.Now())
			conn.Close()
			continue
		}
		l.work.Go(func() {
			defer func() { <-l.conns }()
			defer l.gone(conn)
			l.converse(conn)
		})
	}
}

// lastWord is how long a listener that ends waits for a question that may be on
// its way over a connection.
const lastWord = 50 * time.Millisecond

// converse answers on one connection, question by question, until the client has
// gone, is silent for too long, or the listener ends.
func (l *Listener) converse(conn *net.TCPConn) {
	var name [maxName]byte
	var out []byte
	for first := true; l.await(conn, first); first = false {
		buffer := large.Get().(*[]byte)
		raw, err := receive(conn, "tcp", *buffer)
		if err != nil {
			large.Put(buffer)
			return
		}
		out = l.answerStream(out[:0], raw, &name)
		large.Put(buffer)
		if out == nil || conn.SetWriteDeadline(time.Now().Add(idleTimeout)) != nil || send(conn, "tcp", out) != nil {
			return
		}
	}
}

// await sets the time that the next question may take. A listener that ends
// waits for none, but for the first one of a connection that it has accepted.
func (l *Listener) await(conn *net.TCPConn, first bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[conn] = true
	patience := idleTimeout
	if l.ending.Load() {
		patience = lastWord
	}
	return (first || !l.ending.Load()) && conn.SetReadDeadline(time.Now().Add(patience)) == nil
}

func (l *Listener) gone(conn *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
	conn.Close()
}

// hurry gives every connection the time for a last question.
func (l *Listener) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.open {
		if err := conn.SetReadDeadline(time.Now().Add(lastWord)); err != nil {
			l.s.logger.Debug("a client's connection is gone", "error", err)
		}
	}
}

func (l *Listener) answerStream(out, raw []byte, name *[maxName]byte) []byte {
	if q, usual := parse(raw, name); usual {
		if answer := l.quick(out, raw, q, dns.MaxMsgSize); answer != nil {
			return answer
		}
	}
	if !l.enter() {
		return l.refuse(raw)
	}
	defer l.leave()
	return l.slow(raw, "tcp")
}
