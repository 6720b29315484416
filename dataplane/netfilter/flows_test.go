package netfilter

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// aFlow is a message as the kernel makes it for a TCP connection to a virtual
// address that is over.
func aFlow(t testing.TB) []byte {
	t.Helper()
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	tuple := func(src, dst string, srcPort, dstPort uint16) func(*netlink.AttributeEncoder) error {
		return func(e *netlink.AttributeEncoder) error {
			e.ByteOrder = binary.BigEndian
			e.Nested(ctaTupleIP, func(e *netlink.AttributeEncoder) error {
				e.Bytes(ctaSource4, netip.MustParseAddr(src).AsSlice())
				e.Bytes(ctaDest4, netip.MustParseAddr(dst).AsSlice())
				return nil
			})
			e.Nested(ctaTupleProto, func(e *netlink.AttributeEncoder) error {
				e.ByteOrder = binary.BigEndian
				e.Uint8(ctaProtoNumber, unix.IPPROTO_TCP)
				e.Uint16(ctaSourcePort, srcPort)
				e.Uint16(ctaDestPort, dstPort)
				return nil
			})
			e.Uint16(ctaTupleZone, 7)
			return nil
		}
	}
	counters := func(packets, bytes uint64) func(*netlink.AttributeEncoder) error {
		return func(e *netlink.AttributeEncoder) error {
			e.ByteOrder = binary.BigEndian
			e.Uint64(ctaPackets, packets)
			e.Uint64(ctaBytes, bytes)
			return nil
		}
	}
	e.Nested(ctaOriginal, tuple("10.0.1.8", "10.0.1.2", 36484, 80))
	e.Nested(ctaReply, tuple("10.0.1.3", "10.0.1.8", 80, 36484))
	e.Nested(ctaProtoInfo, func(e *netlink.AttributeEncoder) error {
		e.Nested(ctaTCP, func(e *netlink.AttributeEncoder) error { e.Uint8(ctaTCPState, tcpTimeWait); return nil })
		return nil
	})
	e.Nested(ctaCountersOriginal, counters(6, 392))
	e.Nested(ctaCountersReply, counters(4, 403))
	raw, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}, raw...)
}

func TestFlow(t *testing.T) {
	got, err := parseFlow(aFlow(t))
	want := Tracked{
		Flow: Flow{Protocol: unix.IPPROTO_TCP, Source: netip.MustParseAddrPort("10.0.1.8:36484"),
			Dest: netip.MustParseAddrPort("10.0.1.2:80"), Server: netip.MustParseAddrPort("10.0.1.3:80")},
		Sent: Traffic{6, 392}, Received: Traffic{4, 403}, Zone: 7, Ended: true,
	}
	if err != nil || got != want {
		t.Errorf("got  %+v %v\nwant %+v", got, err, want)
	}
}

// FuzzFlow: no message ends the daemon.
func FuzzFlow(f *testing.F) {
	f.Add(aFlow(f))
	f.Add([]byte{2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := parseFlow(data); err == nil && len(data) < 4 {
			t.Errorf("%d bytes are a flow", len(data))
		}
	})
}

// BenchmarkFlow is what a flow costs whoever looks, without the kernel's part.
func BenchmarkFlow(b *testing.B) {
	msg := aFlow(b)
	for b.Loop() {
		if _, err := parseFlow(msg); err != nil {
			b.Fatal(err)
		}
	}
}
