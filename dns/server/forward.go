package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// upstreams are other servers, in the order to try.
type upstreams struct {
	servers []*upstream
	dial    Dial
}

type upstream struct {
	addr string
	// shunned is until when the server is asked last, Unix nanoseconds.
	shunned atomic.Int64
}

func newUpstreams(addrs []netip.AddrPort, dial Dial) *upstreams {
	u := &upstreams{dial: dial}
	for _, a := range addrs {
		u.servers = append(u.servers, &upstream{addr: a.String()})
	}
	return u
}

// order lists the servers, those that did not answer of late last: no client is
// to wait for a dead one again and again.
func (u *upstreams) order() []*upstream {
	out, last := make([]*upstream, 0, len(u.servers)), []*upstream(nil)
	now := time.Now().UnixNano()
	for _, s := range u.servers {
		if s.shunned.Load() > now {
			last = append(last, s)
		} else {
			out = append(out, s)
		}
	}
	return append(out, last...)
}

// errUseless is an answer that another server may know better.
var errUseless = errors.New("the server fails or refuses")

// forward passes the query on, as it is, and the first useful answer back.
func (l *Listener) forward(raw []byte, q question, network string) []byte {
	began := time.Now()
	u := l.upstreams.Load()
	if u == nil {
		u = l.s.machine.Load()
	}
	for _, server := range u.order() {
		answer, err := exchange(u.dial, network, server.addr, raw, q)
		switch {
		case err == nil:
			l.s.stats.count(forwarded, q.kind, began)
			server.shunned.Store(0)
			binary.BigEndian.PutUint16(answer, q.id)
			return answer
		case !errors.Is(err, errUseless):
			server.shunned.Store(time.Now().Add(resentment).UnixNano())
		}
	}
	l.s.stats.count(failed, q.kind, began)
	return failure(nil, raw, q, dns.RcodeServerFailure)
}

// ample is how large an answer over UDP may be from a server that sends more than
// was asked for, bytes.
const ample = 4096

// large holds messages over TCP while they are read.
var large = sync.Pool{New: func() any { b := make([]byte, dns.MaxMsgSize); return &b }}

// exchange puts the query to one server under an id of its own.
func exchange(dial Dial, network, server string, raw []byte, q question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
	defer cancel()
	conn, err := dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	}
	query := bytes.Clone(raw)
	id := uint16(rand.Uint32())
	binary.BigEndian.PutUint16(query, id)
	if err = errors.Join(err, send(conn, network, query)); err != nil {
		return nil, err
	}
	// A datagram is read one byte past what the client takes, so that more shows.
	buffer := make([]byte, max(q.size, ample)+1)
	if network == "tcp" {
		whole := large.Get().(*[]byte)
		defer large.Put(whole)
		buffer = *whole
	}
	for {
		answer, err := receive(conn, network, buffer)
		if err != nil {
			return nil, err
		}
		if !answers(answer, query[headerSize:q.end], id) {
			if network == "tcp" {
				return nil, errUseless
			}
			continue // not from whom was asked, or late; the deadline ends this
		}
		switch answer[3] & rcodeMask {
		case dns.RcodeServerFailure, dns.RcodeRefused:
			return nil, errUseless
		}
		return bytes.Clone(answer), nil
	}
}

// send writes a message, behind its length where the transport needs it.
func send(w io.Writer, network string, message []byte) error {
	if network == "tcp" {
		message = append(binary.BigEndian.AppendUint16(make([]byte, 0, len(message)+2), uint16(len(message))), message...)
	}
	_, err := w.Write(message)
	return err
}

// receive reads a message into the buffer.
func receive(r io.Reader, network string, buffer []byte) ([]byte, error) {
	if network != "tcp" {
		n, err := r.Read(buffer)
		return buffer[:n], err
	}
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	message := buffer[:binary.BigEndian.Uint16(size[:])]
	_, err := io.ReadFull(r, message)
	return message, err
}

// answers says whether a message is an answer to the question. Servers that
// could not read the question may leave it out.
func answers(message, asked []byte, id uint16) bool {
	if len(message) < headerSize || binary.BigEndian.Uint16(message) != id || message[2]&(flagResponse>>8) == 0 {
		return false
	}
	if binary.BigEndian.Uint16(message[questions:]) == 0 {
		return message[3]&rcodeMask != 0
	}
	return len(message) >= headerSize+len(asked) && bytes.EqualFold(message[headerSize:headerSize+len(asked)], asked)
}

// fit shortens an answer that is too large for the client to what says so.
func fit(answer, raw []byte, q question, limit int) []byte {
	if len(answer) <= limit {
		return answer
	}
	return failure(nil, raw, q, flagCut)
}

// own are the servers of a task that does not ask the machine's: those it named,
// reached from its namespace, or none.
func (l *Listener) own(t Task) *upstreams {
	if len(t.Servers) > 0 {
		return newUpstreams(t.Servers, l.dial)
	}
	if t.Inside {
		return newUpstreams(nil, l.dial)
	}
	return nil
}
