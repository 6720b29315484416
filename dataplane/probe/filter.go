// Package probe follows one real packet: it sends a packet that carries a mark of
// its own where the sender's kernel would put chance, and sees on which links of
// which namespaces packets with that mark pass. It changes nothing in any kernel:
// sockets are all it opens, and they end with the process at the latest.
//
// It knows nothing of services and decides nothing; where the packet should pass is
// dataplane/trace's.
package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
)

// Ping is the protocol of an echo request.
const Ping = lb.Any

// Where the mark is, in bytes from the start of the transport header: TCP's
// sequence number, or the first bytes of what a datagram or an echo request holds.
const (
	markTCP  = 4
	markData = 8
)

func markAt(p lb.Protocol) uint32 {
	if p == lb.TCP {
		return markTCP
	}
	return markData
}

// Sizes of headers. What a tunnel carries begins after UDP, VXLAN and Ethernet.
const (
	size4, size6 = 20, 40
	tunnel       = 8 + 8 + 14
)

// filter is a program for packets without link header that takes those with the
// mark, bare or inside VXLAN. Inner headers are taken for ones without options.
func filter(p lb.Protocol, mark uint32, vxlan uint16) ([]bpf.RawInstruction, error) {
	at := markAt(p)
	// Loads beyond the packet's end drop it, so the shortest packets are looked at
	// first. Jumps are counted from the next instruction.
	look := func(offset uint32) []bpf.Instruction {
		return []bpf.Instruction{
			bpf.LoadIndirect{Off: offset, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: mark, SkipTrue: 1},
			bpf.RetConstant{Val: 0xffff},
		}
	}
	inside := func(proto bpf.Instruction) []bpf.Instruction {
		out := look(at)
		out = append(out, proto,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 1}, bpf.RetConstant{},
			bpf.LoadIndirect{Off: 2, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(vxlan), SkipTrue: 1}, bpf.RetConstant{})
		out = append(append(out, look(tunnel+size4+at)...), look(tunnel+size6+at)...)
		return append(out, bpf.RetConstant{})
	}
	four := append([]bpf.Instruction{bpf.LoadMemShift{Off: 0}}, inside(bpf.LoadAbsolute{Off: 9, Size: 1})...)
	six := append([]bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX, Val: size6}}, inside(bpf.LoadAbsolute{Off: 6, Size: 1})...)
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: uint8(len(four))},
	}
	raw, err := bpf.Assemble(append(append(program, four...), six...))
	if err != nil {
		return nil, fmt.Errorf("assemble the filter of a probe: %w", err)
	}
	return raw, nil
}

// Packet is a marked packet as it was seen.
type Packet struct {
	Src, Dst netip.AddrPort
	// VNI and VTEP are set where it was inside a tunnel: to whom.
	VNI  uint32
	VTEP netip.Addr
}

// parse reads a packet that begins with its IP header; false when it is none of ours.
func parse(b []byte, p lb.Protocol, mark uint32, vxlan uint16) (Packet, bool) {
	src, dst, proto, rest, ok := network(b)
	if !ok {
		return Packet{}, false
	}
	if ports, ok := transport(rest, proto, p, mark); ok {
		return Packet{Src: netip.AddrPortFrom(src, ports[0]), Dst: netip.AddrPortFrom(dst, ports[1])}, true
	}
	if proto != unix.IPPROTO_UDP || len(rest) < tunnel || binary.BigEndian.Uint16(rest[2:]) != vxlan {
		return Packet{}, false
	}
	inner, ok := parse(rest[tunnel:], p, mark, 0)
	inner.VNI, inner.VTEP = binary.BigEndian.Uint32(rest[12:])>>8, dst
	return inner, ok
}

// network reads the IP header.
func network(b []byte) (src, dst netip.Addr, proto byte, rest []byte, ok bool) {
	if len(b) < size4 {
		return
	}
	switch b[0] >> 4 {
	case 4:
		size := int(b[0]&0xf) * 4
		if size < size4 || len(b) < size {
			return
		}
		return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], b[size:], true
	case 6:
		if len(b) < size6 {
			return
		}
		return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], b[size6:], true
	}
	return
}

// transport reads the ports of a packet that has the protocol and the mark.
func transport(b []byte, proto byte, p lb.Protocol, mark uint32) (ports [2]uint16, ok bool) {
	at := int(markAt(p))
	if len(b) < at+4 || binary.BigEndian.Uint32(b[at:]) != mark {
		return ports, false
	}
	switch {
	case p == lb.TCP && proto == unix.IPPROTO_TCP, p == lb.UDP && proto == unix.IPPROTO_UDP:
		return [2]uint16{binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])}, true
	case p == Ping && (proto == unix.IPPROTO_ICMP && b[0] == echo4 || proto == unix.IPPROTO_ICMPV6 && b[0] == echo6):
		return ports, true
	}
	return ports, false
}

// The types of echo requests and replies (RFC 792, RFC 4443).
const (
	echo4, reply4 = 8, 0
	echo6, reply6 = 128, 129
)
