package probe

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
)

// packet makes an IP packet around a transport header.
func packet(src, dst string, proto byte, payload []byte) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if s.Is6() {
		h := make([]byte, size6)
		h[0], h[6] = 0x60, proto
		copy(h[8:], s.AsSlice())
		copy(h[24:], d.AsSlice())
		return append(h, payload...)
	}
	h := make([]byte, size4)
	h[0], h[9] = 0x45, proto
	copy(h[12:], s.AsSlice())
	copy(h[16:], d.AsSlice())
	return append(h, payload...)
}

func ports(src, dst uint16, rest ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, src), dst), rest...)
}

func tcp(mark uint32) []byte {
	return append(ports(4000, 80, binary.BigEndian.AppendUint32(nil, mark)...), make([]byte, 12)...)
}

func udp(mark uint32) []byte {
	return append(ports(4000, 53, 0, 0, 0, 0), binary.BigEndian.AppendUint32(nil, mark)...)
}

func echo(kind byte, mark uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0, 0, 0, 0, 1}, mark)
}

// wrap puts a packet into VXLAN 4097.
func wrap(src, dst string, port uint16, inner []byte) []byte {
	head := append(ports(50000, port, 0, 0, 0, 0), 8, 0, 0, 0, 0, 0x10, 0x01, 0)
	return packet(src, dst, unix.IPPROTO_UDP, append(append(head, make([]byte, 14)...), inner...))
}

func TestFilterAndParse(t *testing.T) {
	const mark = 0xcafef00d
	six := [2]string{"fd00::1", "fd00::2"}
	for _, row := range []struct {
		name string
		p    lb.Protocol
		b    []byte
		want string // "" for what is none of ours
		vni  uint32
	}{
		{"a connection", lb.TCP, packet("10.0.1.3", "10.0.1.4", 6, tcp(mark)), "10.0.1.3:4000 10.0.1.4:80", 0},
		{"another's", lb.TCP, packet("10.0.1.3", "10.0.1.4", 6, tcp(mark+1)), "", 0},
		{"over IPv6", lb.TCP, packet(six[0], six[1], 6, tcp(mark)), "[fd00::1]:4000 [fd00::2]:80", 0},
		{"a datagram", lb.UDP, packet("10.0.1.3", "10.0.1.4", 17, udp(mark)), "10.0.1.3:4000 10.0.1.4:53", 0},
		{"a ping", Ping, packet("10.0.1.3", "10.0.1.4", 1, echo(echo4, mark)), "10.0.1.3:0 10.0.1.4:0", 0},
		{"its reply", Ping, packet("10.0.1.3", "10.0.1.4", 1, echo(reply4, mark)), "", 0},
		{"a ping of IPv6", Ping, packet(six[0], six[1], 58, echo(echo6, mark)), "[fd00::1]:0 [fd00::2]:0", 0},
		{"in a tunnel", lb.TCP, wrap("10.77.0.1", "10.77.0.2", 4789, packet("10.0.1.3", "10.0.1.4", 6, tcp(mark))), "10.0.1.3:4000 10.0.1.4:80", 4097},
		{"IPv6 in a tunnel", lb.TCP, wrap("10.77.0.1", "10.77.0.2", 4789, packet(six[0], six[1], 6, tcp(mark))), "[fd00::1]:4000 [fd00::2]:80", 4097},
		{"a ping in a tunnel over IPv6", Ping, wrap(six[0], six[1], 4789, packet("10.0.1.3", "10.0.1.4", 1, echo(echo4, mark))), "10.0.1.3:0 10.0.1.4:0", 4097},
		{"in another's tunnel", lb.TCP, wrap("10.77.0.1", "10.77.0.2", 4790, packet("10.0.1.3", "10.0.1.4", 6, tcp(mark))), "", 0},
		{"another's in a tunnel", lb.TCP, wrap("10.77.0.1", "10.77.0.2", 4789, packet("10.0.1.3", "10.0.1.4", 6, tcp(7))), "", 0},
		{"too short", lb.TCP, packet("10.0.1.3", "10.0.1.4", 6, []byte{1, 2, 3}), "", 0},
	} {
		raw, err := filter(row.p, mark, 4789)
		if err != nil {
			t.Fatal(err)
		}
		program, _ := bpf.Disassemble(raw)
		vm, err := bpf.NewVM(program)
		if err != nil {
			t.Fatal(err)
		}
		n, err := vm.Run(row.b)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := parse(row.b, row.p, mark, 4789)
		if !ok && row.want == "" {
			if n != 0 && row.name != "its reply" { // replies are told apart afterwards
				t.Errorf("%s: passes the filter", row.name)
			}
			continue
		}
		if text := got.Src.String() + " " + got.Dst.String(); n == 0 || text != row.want || got.VNI != row.vni {
			t.Errorf("%s: filter %d, read %q VNI %d %v, want %q", row.name, n, text, got.VNI, ok, row.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(wrap("10.77.0.1", "10.77.0.2", 4789, packet("10.0.1.3", "10.0.1.4", 6, tcp(1))), uint32(1))
	f.Add([]byte{0x4f, 1}, uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, mark uint32) {
		for _, p := range []lb.Protocol{lb.TCP, lb.UDP, Ping} {
			if got, ok := parse(b, p, mark, 4789); ok && !got.Dst.Addr().IsValid() {
				t.Errorf("%+v", got)
			}
		}
		answers(b, true, reply4, mark)
	})
}

func TestChecksum(t *testing.T) {
	b := append([]byte{echo4, 0, 0, 0, 1, 2, 0, 1}, text...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	if got := checksum(b); got != 0 {
		t.Errorf("a message with its checksum sums up to %#x", got)
	}
}
