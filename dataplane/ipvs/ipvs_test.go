package ipvs

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"pgregory.net/rapid"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// TestMarks: every front of every port has a mark of its own, none is zero or has
// the top bit, and marks in use stay.
func TestMarks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d lb.Desired
		for _, last := range rapid.SliceOfDistinct(rapid.Uint16(), rapid.ID[uint16]).Draw(t, "fronts") {
			d.Services = append(d.Services, lb.Service{Front: lb.Front{Addr: netip.AddrFrom4([4]byte{10, 0, byte(last >> 8), byte(last)})}})
		}
		have := newFronts()
		for i, s := range d.Services {
			if i%2 == 0 { // some have marks already, and just those that others would hash to
				have.marks[s.Addr] = hashMark(d.Services[(i+1)%len(d.Services)].Addr)
			}
		}
		got := wished(d, have)
		taken := map[uint32]bool{0: true}
		for _, s := range d.Services {
			m := got.marks[s.Addr]
			if taken[m] || m&^markMask != 0 {
				t.Fatalf("mark %#x of %s", m, s.Addr)
			}
			taken[m] = true
			if old, ok := have.marks[s.Addr]; ok && old != 0 && old != m {
				t.Fatalf("the mark of %s changed from %#x to %#x", s.Addr, old, m)
			}
		}
		if !wished(d, got).equal(got) {
			t.Fatal("marks change when nothing did")
		}
	})
}

// TestConvert: what the kernel is told reads back as what was meant.
func TestConvert(t *testing.T) {
	for _, b := range []lb.Backend{
		{Addr: netip.MustParseAddr("10.0.0.2"), Port: 80, Weight: 7}, {Addr: netip.MustParseAddr("fd00::2"), Weight: 1},
	} {
		if got := backend(destination(b)); got != b {
			t.Errorf("%+v reads back as %+v", b, got)
		}
		b.Draining = true
		if got := backend(destination(b)); !got.Draining {
			t.Errorf("draining %s reads back as %+v", b, got)
		}
	}
	for _, f := range []lb.Front{{Addr: netip.MustParseAddr("10.0.0.2")}, {Addr: netip.MustParseAddr("fd00::2")},
		{Addr: netip.MustParseAddr("10.0.0.2"), Port: 80, Protocol: lb.UDP}, {Addr: netip.MustParseAddr("fd00::2"), Port: 80, Protocol: lb.SCTP}} {
		marked := map[markKey]netip.Addr{{f.Addr.Is6(), 9}: f.Addr}
		got, ok := serviceOf(virtual(lb.Service{Front: f, Algorithm: lb.SourceHash, Sticky: time.Minute}, 9), marked)
		if !ok || got.Front != f || got.Algorithm != lb.SourceHash || got.Sticky != time.Minute {
			t.Errorf("%s reads back as %s, %t", f, got.Front, ok)
		}
	}
}

// FuzzElements: whatever stands in the kernel's sets, reading it does not panic.
func FuzzElements(f *testing.F) {
	f.Add([]byte{10, 0, 0, 2, 6, 0, 0, 0, 0, 80, 0, 0}, []byte{1, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, key, val []byte) {
		for _, family := range families {
			newFronts().add(family, nftables.SetElement{Key: key, Val: val}, len(val)%2 == 0)
		}
	})
	_ = netfilter.IPv4
}
