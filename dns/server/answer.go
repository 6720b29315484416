package server

import (
	"math/rand/v2"
	"net/netip"

	"github.com/miekg/dns"

	"shoal/dns/zone"
)

// handler answers one task's questions.
type handler struct {
	s        *Server
	networks []string
}

// ServeDNS implements dns.Handler.
func (h handler) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	reply := h.reply(w, q)
	if reply == nil {
		return
	}
	reply.Truncate(size(w, q))
	// A client that went away is not an error of ours.
	_ = w.WriteMsg(reply)
}

// size is how large an answer the client takes, bytes (RFC 1035, RFC 6891).
func size(w dns.ResponseWriter, q *dns.Msg) int {
	if w.RemoteAddr().Network() == "tcp" {
		return dns.MaxMsgSize
	}
	if opt := q.IsEdns0(); opt != nil && opt.UDPSize() >= dns.MinMsgSize {
		return int(opt.UDPSize())
	}
	return dns.MinMsgSize
}

func (h handler) reply(w dns.ResponseWriter, q *dns.Msg) *dns.Msg {
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || q.Response {
		h.s.stats.Refused.Add(1)
		return new(dns.Msg).SetRcode(q, dns.RcodeFormatError)
	}
	if m := h.local(q); m != nil {
		h.s.stats.Local.Add(1)
		return m
	}
	return h.s.forward(w, q)
}

// local answers from the zone, or returns nil when the name is not in it.
func (h handler) local(q *dns.Msg) *dns.Msg {
	z, question := h.s.Zone(), q.Question[0]
	m := new(dns.Msg).SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	if question.Qclass != dns.ClassINET {
		return nil
	}
	if question.Qtype == dns.TypePTR {
		return h.pointer(z, m, question.Name)
	}
	if targets, known := z.Targets(h.networks, question.Name); known {
		return service(m, question, targets)
	}
	addrs, known := z.Addrs(h.networks, question.Name)
	if !known {
		return nil
	}
	for _, a := range addrs {
		if rr := address(question.Name, question.Qtype, a); rr != nil {
			m.Answer = append(m.Answer, rr)
		}
	}
	rand.Shuffle(len(m.Answer), func(i, j int) { m.Answer[i], m.Answer[j] = m.Answer[j], m.Answer[i] })
	return m
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: TTL}
}

// address makes an A or AAAA record, or nil when the address is of the other family.
func address(name string, qtype uint16, a netip.Addr) dns.RR {
	switch {
	case a.Is4() && qtype == dns.TypeA:
		return &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()}
	case a.Is6() && qtype == dns.TypeAAAA:
		return &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()}
	}
	return nil
}

func (h handler) pointer(z *zone.Zone, m *dns.Msg, name string) *dns.Msg {
	addr, ok := reverseAddr(name)
	if !ok {
		return nil
	}
	target, known := z.Name(h.networks, addr)
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
			for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
				if rr := address(name, kind, a); rr != nil {
					m.Extra = append(m.Extra, rr)
				}
			}
		}
	}
	return m
}
