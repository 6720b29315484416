package netfilter

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The 16-byte registers of nftables, and the 4-byte ones that alias them: the
// first 16-byte register is words 8 to 11, the second 12 to 15.
const (
	Reg1  = unix.NFT_REG_1
	Reg2  = unix.NFT_REG_2
	Word1 = unix.NFT_REG32_00 + 1
	Word2 = unix.NFT_REG32_00 + 2
	Word4 = unix.NFT_REG32_00 + 4
	Word5 = unix.NFT_REG32_00 + 5
)

// Family is what differs between IPv4 and IPv6 in a rule: the offsets are those
// of RFC 791 and RFC 8200.
type Family struct {
	Proto        byte // NFPROTO_*
	Suffix       string
	Bytes        uint32 // of an address
	Source, Dest uint32 // offsets of the addresses in the network header
	Addr         nftables.SetDatatype
	// Second and Third are the registers after an address in Reg1.
	Second, Third uint32
}

// The two families.
var (
	IPv4 = Family{unix.NFPROTO_IPV4, "4", 4, 12, 16, nftables.TypeIPAddr, Word1, Word2}
	IPv6 = Family{unix.NFPROTO_IPV6, "6", 16, 8, 24, nftables.TypeIP6Addr, Word4, Word5}
)

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// Is matches packets of the family.
func (f Family) Is() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: Reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: Reg1, Data: []byte{f.Proto}},
	}
}

// LoadDest loads the destination address.
func (f Family) LoadDest(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: f.Dest, Len: f.Bytes}
}

// LoadSource loads the source address.
func (f Family) LoadSource(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: f.Source, Len: f.Bytes}
}

// LoadProto loads the transport protocol's number.
func LoadProto(register uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}
}

// LoadPort loads the transport destination port.
func LoadPort(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

// Proto matches one transport protocol.
func Proto(number byte) []expr.Any {
	return []expr.Any{LoadProto(Reg1), &expr.Cmp{Op: expr.CmpOpEq, Register: Reg1, Data: []byte{number}}}
}

// Within matches an address loaded by load against a prefix.
func (f Family) Within(load expr.Any, p netip.Prefix) []expr.Any {
	mask := make([]byte, f.Bytes)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: Reg1, DestRegister: Reg1, Len: f.Bytes, Mask: mask, Xor: make([]byte, f.Bytes)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: Reg1, Data: p.Masked().Addr().AsSlice()},
	}
}

// Interface matches the name of the link a packet came in by or goes out by.
func Interface(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: Reg1}, &expr.Cmp{Op: op, Register: Reg1, Data: padded}}
}

// DestinationIsLocal matches packets for an address of the namespace itself.
func DestinationIsLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: Reg1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: Reg1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// ConnStatus matches flows that have the status bit (IPS_*) set.
func ConnStatus(bit uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: Reg1}, masked(bit), nonZero()}
}

// ConnState matches flows in one of the states of the bits (CtStateBit*).
func ConnState(bits uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: Reg1}, masked(bits), nonZero()}
}

// ConnMark matches flows that carry the mark's bit.
func ConnMark(bit uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: Reg1}, masked(bit), nonZero()}
}

// SetConnMark adds the bit to the flow's mark.
func SetConnMark(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: Reg1},
		&expr.Bitwise{SourceRegister: Reg1, DestRegister: Reg1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(^bit), Xor: binaryutil.NativeEndian.PutUint32(bit)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: Reg1, SourceRegister: true},
	}
}

func masked(bit uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: Reg1, DestRegister: Reg1, Len: 4,
		Mask: binaryutil.NativeEndian.PutUint32(bit), Xor: make([]byte, 4)}
}

func nonZero() expr.Any {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: Reg1, Data: make([]byte, 4)}
}

// Refuse answers TCP by a reset and everything else by "port unreachable".
func Refuse() (tcp, other []expr.Any) {
	tcp = append(Proto(unix.IPPROTO_TCP), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	other = []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}}
	return tcp, other
}

// Join puts parts of a rule together.
func Join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// PortKey is a port in a set's key: network order, filled up to a register.
func PortKey(port uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, port), 0, 0)
}

// ProtoKey is a protocol number in a set's key, filled up to a register.
func ProtoKey(number byte) []byte { return []byte{number, 0, 0, 0} }

// ParseAddrPort reads an address and, if more follows, a port as AddrPort keys hold them.
func (f Family) ParseAddrPort(b []byte) (netip.Addr, uint16, bool) {
	if len(b) != int(f.Bytes) && len(b) != int(f.Bytes)+4 {
		return netip.Addr{}, 0, false
	}
	a, ok := netip.AddrFromSlice(b[:f.Bytes])
	if !ok || len(b) == int(f.Bytes) {
		return a, 0, ok
	}
	return a, binary.BigEndian.Uint16(b[f.Bytes:]), true
}
