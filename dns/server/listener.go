package server

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Listener is one task's name server.
type Listener struct {
	s         *Server
	udp       *net.UDPConn
	tcp       *net.TCPListener
	dial      Dial
	task      atomic.Pointer[Task]
	upstreams atomic.Pointer[upstreams] // nil for the machine's
	slots     chan struct{}
	conns     chan struct{}

	ending  atomic.Bool
	readers sync.WaitGroup // of the two sockets
	work    sync.WaitGroup // questions and connections under way

	mu   sync.Mutex
	open map[*net.TCPConn]bool
}

// Serve answers on the sockets until Close, as the task needs it. It takes over
// both sockets. The task's own servers are reached by dial.
func (s *Server) Serve(udp *net.UDPConn, tcp *net.TCPListener, t Task, dial Dial) *Listener {
	l := &Listener{
		s: s, udp: udp, tcp: tcp, dial: dial,
		slots: make(chan struct{}, maxForwardsPerTask), conns: make(chan struct{}, maxConnections),
		open: map[*net.TCPConn]bool{},
	}
	l.Set(t)
	l.readers.Go(l.readPackets)
	l.readers.Go(l.accept)
	return l
}

// Set changes how the task's questions are answered from now on.
func (l *Listener) Set(t Task) {
	l.upstreams.Store(l.own(t))
	l.task.Store(&t)
}

// Close ends the listener and its sockets. Other processes that hold the sockets
// too go on.
func (l *Listener) Close() error {
	l.ending.Store(true)
	err := errors.Join(l.udp.Close(), l.tcp.Close())
	l.readers.Wait()
	l.hurry()
	l.work.Wait()
	return err
}

// Release stops taking questions from the sockets, for another process that holds
// them too, and answers what was taken. It returns when all is answered or ctx
// ends. Close must follow.
func (l *Listener) Release(ctx context.Context) error {
	l.ending.Store(true)
	past := time.Unix(1, 0)
	err := errors.Join(l.udp.SetReadDeadline(past), l.tcp.SetDeadline(past))
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.readers.Wait()
		l.hurry()
		l.work.Wait()
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// maxQuery is how large a query over UDP may be; what is longer is not read whole
// and cannot be understood.
const maxQuery = 1536

// readPackets answers over UDP. What the zone knows is answered at once and by
// this goroutine alone: nothing is handed over, nothing is allocated.
func (l *Listener) readPackets() {
	in, out := make([]byte, maxQuery), make([]byte, 0, maxQuery)
	var name [maxName]byte
	for {
		n, from, err := l.udp.ReadFromUDPAddrPort(in)
		if l.ending.Load() && err != nil {
			return
		}
		if err != nil {
			l.complain("read a question", err)
			continue
		}
		q, usual := parse(in[:n], &name)
		if usual {
			if answer := l.quick(out[:0], in[:n], q, q.size); answer != nil {
				l.write(answer, from)
				continue
			}
		}
		l.later(append([]byte(nil), in[:n]...), from)
	}
}

func (l *Listener) write(answer []byte, to netip.AddrPort) {
	if answer == nil {
		return
	}
	if _, err := l.udp.WriteToUDPAddrPort(answer, to); err != nil && !l.ending.Load() {
		l.complain("answer", err)
	}
}

// complain tells of a socket that does not work, and keeps a broken one from
// keeping the machine busy.
func (l *Listener) complain(what string, err error) {
	l.s.logger.Warn("a task's name server cannot "+what, "networks", l.task.Load().Networks, "error", err)
	time.Sleep(10 * time.Millisecond)
}

// later answers a query over UDP that takes longer, beside the others.
func (l *Listener) later(raw []byte, from netip.AddrPort) {
	if !l.enter() {
		l.write(l.refuse(raw), from)
		return
	}
	l.work.Go(func() {
		defer l.leave()
		l.write(l.slow(raw, "udp"), from)
	})
}

// enter takes a place among the questions that take long; leave gives it back.
func (l *Listener) enter() bool {
	select {
	case l.slots <- struct{}{}:
	default:
		return false
	}
	select {
	case l.s.slots <- struct{}{}:
		return true
	default:
		<-l.slots
		return false
	}
}

func (l *Listener) leave() { <-l.s.slots; <-l.slots }

// refuse answers a query for which there is no place.
func (l *Listener) refuse(raw []byte) []byte {
	l.s.stats.count(refused, dns.TypeNone, time.Now())
	m := new(dns.Msg)
	if m.Unpack(raw) != nil || m.Response {
		return nil
	}
	return pack(new(dns.Msg).SetRcode(m, dns.RcodeRefused))
}

// slow answers any query: from the zone, or by another server.
func (l *Listener) slow(raw []byte, network string) []byte {
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil || len(m.Question) != 1 || m.Opcode != dns.OpcodeQuery || m.Response {
		l.s.stats.count(refused, dns.TypeNone, time.Now())
		if len(raw) < headerSize || m.Response {
			return nil
		}
		return pack(new(dns.Msg).SetRcode(m, dns.RcodeFormatError))
	}
	if opt := m.IsEdns0(); opt != nil && opt.Version() != 0 {
		return pack(new(dns.Msg).SetRcode(m, dns.RcodeBadVers).SetEdns0(advertised, false))
	}
	limit := dns.MaxMsgSize
	q := question{id: m.Id, end: len(raw), size: dns.MinMsgSize}
	if opt := m.IsEdns0(); opt != nil {
		q.edns, q.size = true, max(dns.MinMsgSize, int(opt.UDPSize()))
	}
	if network == "udp" {
		limit = q.size
	}
	q.kind = m.Question[0].Qtype
	began := time.Now()
	if reply := l.local(m); reply != nil {
		l.s.stats.count(local, q.kind, began)
		if q.edns {
			reply.SetEdns0(advertised, false)
		}
		reply.Truncate(limit)
		return pack(reply)
	}
	end, ok := questionEnd(raw)
	if !ok {
		return pack(new(dns.Msg).SetRcode(m, dns.RcodeFormatError))
	}
	q.end, q.flags = end, uint16(raw[2])<<8|uint16(raw[3])
	if kind := q.kind; l.task.Load().Whole && (kind == dns.TypeA || kind == dns.TypeAAAA) && !strings.Contains(strings.TrimSuffix(m.Question[0].Name, "."), ".") {
		l.s.stats.count(local, q.kind, began)
		return failure(nil, raw, q, dns.RcodeSuccess)
	}
	return fit(l.forward(raw, q, network), raw, q, limit)
}

// questionEnd finds the end of the one question, whose name is not compressed.
func questionEnd(raw []byte) (int, bool) {
	at := headerSize
	for at < len(raw) && raw[at] != 0 {
		if raw[at] > 63 {
			return 0, false
		}
		at += int(raw[at]) + 1
	}
	return at + 5, at+5 <= len(raw)
}

func pack(m *dns.Msg) []byte {
	raw, err := m.Pack()
	if err != nil {
		return nil // nothing that was understood cannot be said
	}
	return raw
}
