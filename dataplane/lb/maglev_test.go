package lb_test

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"shoal/dataplane/lb"
)

func maglevOf(n int, skip int) lb.Service {
	s := lb.Service{Algorithm: lb.Maglev}
	for i := range n {
		if i != skip {
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), Weight: 1})
		}
	}
	return s
}

// TestMaglev: shares are even, and a backend that goes moves hardly any slot of
// those that stay.
func TestMaglev(t *testing.T) {
	for _, n := range []int{2, 3, 10, 50, 100} {
		all := maglevOf(n, -1).Slots()
		if len(all) != lb.MaglevSlots {
			t.Fatalf("%d slots", len(all))
		}
		count := map[netip.Addr]int{}
		for _, b := range all {
			count[b.Addr]++
		}
		for a, c := range count {
			if fair := lb.MaglevSlots / n; c < fair || c > fair+1 {
				t.Errorf("%s of %d has %d slots of %d", a, n, c, lb.MaglevSlots)
			}
		}
		moved, rest := 0, maglevOf(n, n/2).Slots()
		for i, b := range all {
			if b.Addr != rest[i].Addr && b.Addr != netip.AddrFrom4([4]byte{10, 0, 1, byte(n / 2)}) {
				moved++
			}
		}
		t.Logf("%d backends: one that goes moves %d of the others' %d slots", n, moved, lb.MaglevSlots)
		if moved > lb.MaglevSlots/5 {
			t.Errorf("one of %d backends goes: %d slots of the others move", n, moved)
		}
	}
}

// TestMaglevHeedsWeights: shares follow the weights, and the table does not depend
// on the order of the backends once they are canonical.
func TestMaglevHeedsWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := lb.Service{Front: lb.Front{Addr: netip.MustParseAddr("10.0.0.1")}, Algorithm: lb.Maglev}
		total := 0
		for i := range rapid.IntRange(1, 20).Draw(t, "backends") {
			w := rapid.IntRange(1, 5).Draw(t, "weight")
			total += w
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), Weight: uint32(w)})
		}
		count := map[netip.Addr]int{}
		for _, b := range s.Slots() {
			count[b.Addr]++
		}
		for _, b := range s.Backends {
			fair := float64(lb.MaglevSlots) * float64(b.Weight) / float64(total)
			if c := float64(count[b.Addr]); c < fair*0.9-5 || c > fair*1.1+5 {
				t.Fatalf("weight %d of %d has %v slots, fair are %v", b.Weight, total, c, fair)
			}
		}
	})
}

// TestMaglevOfMany ends, and leaves no slot empty.
func TestMaglevOfMany(t *testing.T) {
	s := lb.Service{Algorithm: lb.Maglev}
	for i := range 2000 {
		s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Weight: 1})
	}
	for i, b := range s.Slots() {
		if !b.Addr.IsValid() {
			t.Fatalf("slot %d is empty", i)
		}
	}
}
