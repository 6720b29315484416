package server

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Parts of a message's header (RFC 1035, 4.1.1).
const (
	headerSize   = 12
	flagResponse = 1 << 15
	opcodeMask   = 0xf << 11
	flagAnswers  = 1 << 10 // authoritative
	flagCut      = 1 << 9  // truncated
	flagDesired  = 1 << 8  // recursion desired
	flagAble     = 1 << 7  // recursion available
	rcodeMask    = 0xf
	questions    = 4 // where the four counts begin
)

// question is a query that has one question and nothing unusual.
type question struct {
	id, flags   uint16
	name        []byte // canonical: lower-case, without the final dot
	end         int    // where the question section ends
	kind, class uint16
	edns        bool
	size        int // how large an answer over UDP may be, bytes
}

// maxName bounds a name, bytes on the wire (RFC 1035, 2.3.4).
const maxName = 255

// parse reads an ordinary query; the name is written to buffer. It is false for
// everything else, also for names with bytes that texts must escape.
func parse(raw []byte, buffer *[maxName]byte) (q question, ok bool) {
	if len(raw) < headerSize {
		return q, false
	}
	q.id, q.flags = binary.BigEndian.Uint16(raw), binary.BigEndian.Uint16(raw[2:])
	if q.flags&(flagResponse|opcodeMask|flagCut) != 0 || binary.BigEndian.Uint32(raw[questions:]) != 1<<16 ||
		binary.BigEndian.Uint16(raw[8:]) != 0 {
		return q, false
	}
	extra := binary.BigEndian.Uint16(raw[10:])
	at, n := headerSize, 0
	for {
		if at >= len(raw) {
			return q, false
		}
		size := int(raw[at])
		at++
		if size == 0 {
			break
		}
		if size > 63 || at+size > len(raw) || n+size+1 > maxName {
			return q, false
		}
		if n > 0 {
			buffer[n] = '.'
			n++
		}
		for _, c := range raw[at : at+size] {
			if buffer[n], ok = plain(c); !ok {
				return q, false
			}
			n++
		}
		at += size
	}
	if at+4 > len(raw) {
		return q, false
	}
	q.name, q.kind, q.class, q.end = buffer[:n], binary.BigEndian.Uint16(raw[at:]), binary.BigEndian.Uint16(raw[at+2:]), at+4
	return q, q.options(raw[at+4:], extra)
}

// plain gives a byte of a host's name in lower case; false for any that other
// names may have.
func plain(c byte) (byte, bool) {
	switch {
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A', true
	case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		return c, true
	}
	return 0, false
}

// options reads what follows the question: nothing, or an OPT record of version 0
// (RFC 6891, 6.1.2).
func (q *question) options(rest []byte, extra uint16) bool {
	q.size = dns.MinMsgSize
	if extra == 0 {
		return len(rest) == 0
	}
	if extra != 1 || len(rest) < 11 || rest[0] != 0 || binary.BigEndian.Uint16(rest[1:]) != dns.TypeOPT || rest[6] != 0 ||
		int(binary.BigEndian.Uint16(rest[9:])) != len(rest)-11 {
		return false
	}
	q.edns, q.size = true, max(q.size, int(binary.BigEndian.Uint16(rest[3:])))
	return true
}

// optSize is the size of an OPT record without options, and advertised how large
// a query over UDP is taken.
const (
	optSize    = 11
	advertised = 1232
)

// head begins an answer: header and question. The caller counts the records.
func head(out, raw []byte, q question, flags uint16) []byte {
	out = binary.BigEndian.AppendUint16(out, q.id)
	out = binary.BigEndian.AppendUint16(out, flagResponse|flagAble|q.flags&flagDesired|flags)
	out = append(out, 0, 1, 0, 0, 0, 0, 0, 0)
	return append(out, raw[headerSize:q.end]...)
}

// tail ends an answer with an OPT record where the query had one.
func tail(out []byte, q question) []byte {
	if q.edns {
		binary.BigEndian.PutUint16(out[10:], binary.BigEndian.Uint16(out[10:])+1)
		out = append(out, 0, 0, byte(dns.TypeOPT), advertised>>8, advertised&0xff, 0, 0, 0, 0, 0, 0)
	}
	return out
}

// failure is an answer without records.
func failure(out, raw []byte, q question, rcode uint16) []byte {
	return tail(head(out, raw, q, rcode), q)
}
