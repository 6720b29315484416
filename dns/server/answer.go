package server

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"shoal/dns/zone"
)

// quick answers from the zone a question that needs no thinking: the addresses of
// a name, or that it has none of the kind. The answer is appended to out; it is
// nil when something slower must look at the query.
func (l *Listener) quick(out, raw []byte, q question, limit int) []byte {
	if q.class != dns.ClassINET || q.kind == dns.TypePTR || q.kind == dns.TypeSRV {
		return nil
	}
	a, found := l.s.Zone().Find(l.task.Load().Networks, q.name)
	if !found {
		return nil
	}
	defer l.s.stats.count(local, q.kind, time.Now())
	out = head(out, raw, q, flagAnswers)
	if q.edns {
		limit -= optSize
	}
	switch q.kind {
	case dns.TypeA:
		out = addresses(out, a.V4(), limit)
	case dns.TypeAAAA:
		out = addresses(out, a.V6(), limit)
	case dns.TypeANY:
		out = addresses(out, a.All(), limit)
	}
	return tail(out, q)
}

// addresses adds records for the question's name, from a random one on and with a
// random stride, so that no order of them is the usual one. What does not fit is
// left out, and the answer says so.
func addresses(out []byte, addrs []netip.Addr, limit int) []byte {
	n := len(addrs)
	if n == 0 {
		return out
	}
	at, step, count := rand.IntN(n), stride(n), 0
	for range n {
		before := len(out)
		out = record(out, addrs[at])
		if len(out) > limit {
			out = out[:before]
			out[2] |= flagCut >> 8
			break
		}
		count++
		at = (at + step) % n
	}
	binary.BigEndian.PutUint16(out[6:], uint16(count))
	return out
}

// stride is a random number below n that has no divisor in common with it, so
// that steps of it come by everything.
func stride(n int) int {
	if n < 3 {
		return 1
	}
	for {
		if s := 1 + rand.IntN(n-1); gcd(s, n) == 1 {
			return s
		}
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// record adds an A or AAAA record whose name is the question's (RFC 1035, 4.1.4).
func record(out []byte, addr netip.Addr) []byte {
	kind, size := byte(dns.TypeA), byte(4)
	if addr.Is6() {
		kind, size = byte(dns.TypeAAAA), 16
	}
	out = append(out, 0xc0, headerSize, 0, kind, 0, dns.ClassINET, 0, 0, 0, TTL, 0, size)
	if addr.Is6() {
		bytes := addr.As16()
		return append(out, bytes[:]...)
	}
	bytes := addr.As4()
	return append(out, bytes[:]...)
}

// local answers any query from the zone, or returns nil when the name is not in it.
func (l *Listener) local(m *dns.Msg) *dns.Msg {
	z, question, networks := l.s.Zone(), m.Question[0], l.task.Load().Networks
	reply := new(dns.Msg).SetReply(m)
	reply.Authoritative, reply.RecursionAvailable, reply.Compress = true, true, true
	if question.Qclass != dns.ClassINET {
		return nil
	}
	if question.Qtype == dns.TypePTR {
		return pointer(z, reply, question.Name, networks)
	}
	if targets, known := z.Targets(networks, question.Name); known {
		return service(reply, question, targets)
	}
	addrs, known := z.Addrs(networks, question.Name)
	if !known {
		return nil
	}
	for _, i := range rand.Perm(len(addrs)) {
		if rr := addressRecord(question.Name, addrs[i]); rr.Header().Rrtype == question.Qtype || question.Qtype == dns.TypeANY {
			reply.Answer = append(reply.Answer, rr)
		}
	}
	return reply
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: TTL}
}

func addressRecord(name string, a netip.Addr) dns.RR {
	if a = a.Unmap(); a.Is4() {
		return &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()}
}

func pointer(z *zone.Zone, m *dns.Msg, name string, networks []string) *dns.Msg {
	addr, ok := reverseAddr(name)
	if !ok {
		return nil
	}
	target, known := z.Name(networks, addr)
	if !known {
		return nil
	}
	m.Answer = []dns.RR{&dns.PTR{Hdr: header(name, dns.TypePTR), Ptr: dns.Fqdn(target)}}
	return m
}

// service answers an SRV name (RFC 2782), the addresses beside it.
func service(m *dns.Msg, q dns.Question, targets []zone.Target) *dns.Msg {
	if q.Qtype != dns.TypeSRV && q.Qtype != dns.TypeANY {
		return m
	}
	for _, i := range rand.Perm(len(targets)) {
		t := targets[i]
		name := dns.Fqdn(t.Name)
		m.Answer = append(m.Answer, &dns.SRV{Hdr: header(q.Name, dns.TypeSRV), Priority: 1, Weight: 1, Port: t.Port, Target: name})
		for _, a := range t.Addrs {
			m.Extra = append(m.Extra, addressRecord(name, a))
		}
	}
	return m
}
