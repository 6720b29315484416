package lb_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"shoal/dataplane/lb"
)

// drawDesired draws wishes from a small pool, so that they overlap.
func drawDesired(t *rapid.T, label string) lb.Desired {
	d := lb.Desired{}
	if rapid.Bool().Draw(t, label+" masquerade") {
		d.MasqueradeFrom = []netip.Prefix{netip.MustParsePrefix("172.18.0.0/16")}
	}
	fronts := []lb.Front{
		{Addr: netip.MustParseAddr("10.0.0.2")}, {Addr: netip.MustParseAddr("10.0.0.3")},
		{Addr: netip.MustParseAddr("10.0.0.2"), Port: 80, Protocol: lb.TCP}, {Addr: netip.MustParseAddr("10.0.0.2"), Port: 80, Protocol: lb.UDP},
	}
	for _, f := range fronts {
		if !rapid.Bool().Draw(t, label+" "+f.String()) {
			continue
		}
		s := lb.Service{Front: f, Algorithm: rapid.SampledFrom([]lb.Algorithm{"", lb.RoundRobin, lb.WeightedRoundRobin, lb.SourceHash}).Draw(t, "algorithm")}
		for _, last := range rapid.SliceOfDistinct(rapid.ByteRange(10, 15), rapid.ID[byte]).Draw(t, "backends") {
			b := lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, 1, last}), Weight: rapid.Uint32Range(0, 5).Draw(t, "weight"), Draining: rapid.Bool().Draw(t, "draining")}
			if f.Protocol != lb.Any {
				b.Port = 8080
			}
			s.Backends = append(s.Backends, b)
		}
		d.Services = append(d.Services, s)
	}
	c, err := d.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPlanConverges: from any state to any other, a plan leads there, no step is
// refused, nothing is left to do, and no service that has backends before and
// after is ever without.
func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := drawDesired(t, "from"), drawDesired(t, "to")
		ops := lb.Plan(to, from)
		have := from
		for _, op := range ops {
			next, err := lb.After(have, []lb.Op{op})
			if err != nil {
				t.Fatal(err)
			}
			have = next
			for _, s := range have.Services {
				if len(s.Backends) == 0 && backends(from, s.Front) > 0 && backends(to, s.Front) > 0 {
					t.Fatalf("%s leaves %s without backends", op, s.Front)
				}
			}
			if op.String() == "" || strings.Contains(op.String(), "%!") {
				t.Fatalf("an operation reads %q", op)
			}
		}
		if rest := lb.Plan(to, have); len(rest) > 0 {
			t.Fatalf("after %v still %v", ops, rest)
		}
		if !reflect.DeepEqual(have, to) {
			t.Fatalf("arrived at %+v, want %+v", have, to)
		}
	})
}

func backends(d lb.Desired, f lb.Front) int {
	for _, s := range d.Services {
		if s.Front == f {
			return len(s.Backends)
		}
	}
	return 0
}

// TestCanonicalIsOrderFree: the order of a wish does not matter, and what is
// canonical stays as it is.
func TestCanonicalIsOrderFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDesired(t, "wish")
		shuffled := lb.Desired{MasqueradeFrom: d.MasqueradeFrom, Services: rapid.Permutation(d.Services).Draw(t, "order")}
		got, err := shuffled.Canonical()
		if err != nil || !reflect.DeepEqual(got.Services, d.Services) {
			t.Fatalf("%+v, %v; want %+v", got, err, d)
		}
	})
}

func TestOpReadsWell(t *testing.T) {
	s := lb.Service{Front: lb.Front{Addr: netip.MustParseAddr("10.0.0.2")}, Name: "web", Algorithm: lb.RoundRobin}
	p := lb.Service{Front: lb.Front{Addr: netip.MustParseAddr("fd00::2"), Port: 80, Protocol: lb.TCP}}
	for want, op := range map[string]lb.Op{
		"add service 10.0.0.2 (web) rr":                           {Kind: lb.AddService, Service: s},
		"remove service 10.0.0.2 (web)":                           {Kind: lb.RemoveService, Service: s},
		"set masquerade 10.0.0.0/8":                               {Kind: lb.SetMasquerade, From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		"set masquerade nobody":                                   {Kind: lb.SetMasquerade},
		"add backend 10.0.0.3 weight 3 (web.1) of 10.0.0.2 (web)": {Kind: lb.AddBackend, Service: s, Backend: lb.Backend{Addr: netip.MustParseAddr("10.0.0.3"), Weight: 3, Task: "web.1"}},
		"set backend [fd00::3]:8080 draining of [fd00::2]:80/tcp": {Kind: lb.SetBackend, Service: p, Backend: lb.Backend{Addr: netip.MustParseAddr("fd00::3"), Port: 8080, Draining: true}},
	} {
		if got := op.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestSlots: shares follow the weights, everyone eligible has a slot, and the
// table stays bounded.
func TestSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := lb.Service{Algorithm: lb.WeightedRoundRobin}
		total := uint64(0)
		for i := range rapid.IntRange(1, 20).Draw(t, "backends") {
			w := rapid.Uint32Range(1, lb.WeightMax).Draw(t, "weight")
			total += uint64(w)
			s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Weight: w})
		}
		slots := s.Slots()
		if len(slots) > lb.SlotsMax+len(s.Backends) {
			t.Fatalf("%d slots", len(slots))
		}
		count := map[netip.Addr]int{}
		for _, b := range slots {
			count[b.Addr]++
		}
		for _, b := range s.Backends {
			share := float64(b.Weight) / float64(total) * float64(len(slots))
			if n := float64(count[b.Addr]); n < 1 || n < share*0.95-2 || n > share*1.05+2 {
				t.Fatalf("weight %d of %d has %v of %d slots", b.Weight, total, n, len(slots))
			}
		}
	})
	s := lb.Service{Algorithm: lb.WeightedRoundRobin, Backends: []lb.Backend{
		{Addr: netip.MustParseAddr("10.0.0.1"), Weight: 4}, {Addr: netip.MustParseAddr("10.0.0.2"), Weight: 2}, {Addr: netip.MustParseAddr("10.0.0.3"), Weight: 2, Draining: true}}}
	got := ""
	for _, b := range s.Slots() {
		got += b.Addr.String()[7:]
	}
	if got != "121" {
		t.Errorf("4:2 and one draining gives %q, want 121", got)
	}
}

func TestStale(t *testing.T) {
	vip, other := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.9")
	b1, b2 := netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("10.0.1.2")
	before := lb.Desired{Services: []lb.Service{
		{Front: lb.Front{Addr: vip}, Backends: []lb.Backend{{Addr: b1}, {Addr: b2, Draining: true}}},
		{Front: lb.Front{Addr: vip, Port: 80, Protocol: lb.TCP}, Backends: []lb.Backend{{Addr: b1, Port: 8080}}}}}
	after := lb.Desired{Services: []lb.Service{
		{Front: lb.Front{Addr: vip}, Backends: []lb.Backend{{Addr: b2, Draining: true}}}, before.Services[1]}}
	from, _ := before.Canonical()
	to, _ := after.Canonical()
	stale, changed := lb.Stale(to, lb.Plan(to, from))
	if len(changed) != 1 || changed[0] != (lb.Front{Addr: vip}) {
		t.Fatalf("changed %v", changed)
	}
	flow := func(p lb.Protocol, dst netip.Addr, port uint16, server netip.Addr, sport uint16) lb.Flow {
		return lb.Flow{Protocol: p, Dest: netip.AddrPortFrom(dst, port), Server: netip.AddrPortFrom(server, sport)}
	}
	for _, row := range []struct {
		name string
		f    lb.Flow
		want bool
	}{
		{"its server went", flow(lb.UDP, vip, 53, b1, 53), true},
		{"its server drains", flow(lb.UDP, vip, 53, b2, 53), false},
		{"begun before the front was balanced", flow(lb.UDP, vip, 53, vip, 53), true},
		{"of the front of one port, which did not change", flow(lb.TCP, vip, 80, b1, 8080), false},
		{"to another address", flow(lb.UDP, other, 53, b1, 53), false},
	} {
		if got := stale(row.f); got != row.want {
			t.Errorf("%s: stale %t, want %t", row.name, got, row.want)
		}
	}
}
