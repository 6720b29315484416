package fabric

import (
	"net/netip"
	"testing"

	"shoal/dataplane/lb"
)

func TestCompared(t *testing.T) {
	list := func(change func(*lb.Service)) []lb.Service {
		s := lb.Service{Front: lb.Front{Addr: netip.MustParseAddr("10.0.1.2")}, Name: "web", Algorithm: lb.RoundRobin,
			Backends: []lb.Backend{{Addr: netip.MustParseAddr("10.0.1.3"), Weight: 1, Task: "web.1"}}}
		if change != nil {
			change(&s)
		}
		return []lb.Service{s}
	}
	base := list(nil)
	tests := []struct {
		name string
		a, b []lb.Service
		want bool
	}{
		{"the same", base, base, true},
		{"a copy", base, list(nil), true},
		{"nothing", nil, []lb.Service{}, true},
		{"shorter", base, nil, false},
		{"another front", base, list(func(s *lb.Service) { s.Port, s.Protocol = 80, lb.TCP }), false},
		{"another name", base, list(func(s *lb.Service) { s.Name = "db" }), false},
		{"another algorithm", base, list(func(s *lb.Service) { s.Algorithm = lb.Maglev }), false},
		{"draining", base, list(func(s *lb.Service) { s.Backends[0].Draining = true }), false},
		{"another task", base, list(func(s *lb.Service) { s.Backends[0].Task = "web.2" }), false},
	}
	c := compared{}
	for range 2 { // the second time from memory
		for _, tt := range tests {
			if got := c.equal(tt.a, tt.b); got != tt.want {
				t.Errorf("%s: %v", tt.name, got)
			}
		}
	}
}
