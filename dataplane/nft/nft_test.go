package nft

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

func TestSupports(t *testing.T) {
	d := New()
	for a, want := range map[lb.Algorithm]string{"": "", lb.RoundRobin: "", lb.WeightedRoundRobin: "", lb.SourceHash: "",
		lb.LeastConn: "does not count", lb.WeightedLeastConn: "does not count", lb.Maglev: "", "x": "no such"} {
		err := d.Supports(a)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", a, err, want)
		}
	}
}

// TestNames: names are readable, distinct and short enough for the kernel.
func TestNames(t *testing.T) {
	seen := map[string]lb.Front{}
	for _, a := range []string{"10.0.0.2", "fd00::2", "fd00:1111:2222:3333:4444:5555:6666:7777"} {
		for _, f := range []lb.Front{{Addr: netip.MustParseAddr(a)}, {Addr: netip.MustParseAddr(a), Port: 80, Protocol: lb.TCP},
			{Addr: netip.MustParseAddr(a), Port: 80, Protocol: lb.UDP}, {Addr: netip.MustParseAddr(a), Port: 65535, Protocol: lb.SCTP}} {
			name := objectName(f)
			if other, ok := seen[name]; ok || len(name) > 127 || strings.ContainsAny(name, ": /") {
				t.Errorf("%s is named %q (also %v)", f, name, other)
			}
			seen[name] = f
			e := frontElement(f)
			if got, ok := parseFront(netfilter.FamilyOf(f.Addr), e.Key); !ok || got != f {
				t.Errorf("%s reads back as %s, %t", f, got, ok)
			}
		}
	}
}

// TestAssemble: what is written for a service is read back as that service.
func TestAssemble(t *testing.T) {
	for i, algorithm := range []lb.Algorithm{lb.RoundRobin, lb.WeightedRoundRobin, lb.SourceHash, lb.Maglev} {
		d, err := lb.Desired{Services: []lb.Service{{Front: lb.Front{Addr: netip.MustParseAddr("fd00::2"), Port: 80, Protocol: lb.TCP},
			Name: "web", Algorithm: algorithm, Sticky: time.Duration(i) * time.Minute, Backends: []lb.Backend{
				{Addr: netip.MustParseAddr("fd00::3"), Port: 8080, Weight: 3, Task: "web.1.abc"},
				{Addr: netip.MustParseAddr("fd00::4"), Port: 8080, Draining: true, Task: "web.2.def"},
				{Addr: netip.MustParseAddr("fd00::5"), Port: 8081}}}}}.Canonical()
		if err != nil {
			t.Fatal(err)
		}
		s := d.Services[0]
		elements, slots := servers("ns", s)
		got, ok := assemble(s.Front, rules(s, slots)[0].Comment, elements)
		if !ok || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: %+v, want %+v", algorithm, got, s)
		}
	}
}

// TestTurn: namespaces do not all begin with the same server, hashing is the same everywhere.
func TestTurn(t *testing.T) {
	s := lb.Service{Front: lb.Front{Addr: netip.MustParseAddr("10.0.0.2")}, Algorithm: lb.RoundRobin}
	first := map[int]bool{}
	for i := range 64 {
		first[turn(fmt.Sprintf("ns%d", i), s, 4)] = true
	}
	if len(first) != 4 {
		t.Errorf("64 namespaces begin at %v of 4", first)
	}
	for _, a := range []lb.Algorithm{lb.SourceHash, lb.Maglev} {
		if s.Algorithm = a; turn("a", s, 4) != 0 || turn("b", s, 4) != 0 {
			t.Errorf("%s depends on the namespace", a)
		}
	}
}

func TestTranslationRefusals(t *testing.T) {
	to := netip.MustParseAddrPort("10.0.0.2:80")
	for name, tr := range map[string]lb.Translation{
		"port twice":       {Forwards: []lb.Forward{{Protocol: lb.TCP, Port: 80, To: to, Name: "a"}, {Protocol: lb.TCP, Port: 80, To: to, Name: "b"}}},
		"no protocol":      {Forwards: []lb.Forward{{Port: 80, To: to}}},
		"no port":          {Forwards: []lb.Forward{{Protocol: lb.TCP, To: to}}},
		"no bridge":        {Masquerade: []lb.Egress{{Source: netip.MustParsePrefix("10.0.0.0/8")}}},
		"no inner link":    {Inner: []lb.Inner{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}},
		"no inner prefix":  {Inner: []lb.Inner{{Link: "br0"}}},
		"families mixed":   {Redirects: []lb.Redirect{{Protocol: lb.TCP, From: to, To: netip.MustParseAddrPort("[::1]:80")}}},
		"redirect twice":   {Redirects: []lb.Redirect{{Protocol: lb.TCP, From: to, To: to}, {Protocol: lb.TCP, From: to, To: to}}},
		"redirect nowhere": {Redirects: []lb.Redirect{{Protocol: lb.TCP, From: to}}},
	} {
		if _, err := canonicalTranslation(tr); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// FuzzElements: whatever stands in a kernel's maps, reading it does not panic and
// what is accepted can be written again.
func FuzzElements(f *testing.F) {
	f.Add([]byte{10, 0, 0, 2}, []byte{10, 0, 0, 3, 0, 80, 0, 0}, "weight=1 web.1", "rr web")
	f.Fuzz(func(t *testing.T, key, val []byte, comment, rule string) {
		for _, family := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
			front, ok := parseFront(family, key)
			if !ok {
				continue
			}
			s, ok := assemble(front, rule, []nftables.SetElement{{Key: []byte{0, 0, 0, 0}, Val: val, Comment: comment}})
			if ok {
				servers("", s)
			}
		}
	})
}

// TestServerMarks: every server of a service has a mark of its own, which says
// what all flows of the service say and does not depend on the other servers.
func TestServerMarks(t *testing.T) {
	s := lb.Service{Front: lb.Front{Addr: netip.MustParseAddr("10.0.0.2")}, Masquerade: true}
	for i := range 500 {
		s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Weight: 1})
	}
	all, seen := serverMarks(s), map[uint32]bool{}
	for _, m := range all {
		if seen[m] || m&^numberMask != balancedBit|hiddenBit {
			t.Errorf("mark %#x", m)
		}
		seen[m] = true
	}
	s.Backends = s.Backends[250:]
	for value, m := range serverMarks(s) {
		if all[value] != m {
			t.Errorf("the mark of %v changed from %#x to %#x", []byte(value), all[value], m)
		}
	}
}
