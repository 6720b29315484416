package fabric

import (
	"net/netip"
	"reflect"
	"testing"

	"shoal/dataplane/lb"
)

func TestReduce(t *testing.T) {
	front := lb.Front{Addr: netip.MustParseAddr("10.0.1.2")}
	backends := func(texts ...string) (out []lb.Backend) {
		for _, text := range texts {
			draining := text[0] == '-'
			if draining {
				text = text[1:]
			}
			out = append(out, lb.Backend{Addr: netip.MustParseAddr(text), Weight: 1, Draining: draining})
		}
		return out
	}
	const a, b, c = "10.0.1.3", "10.0.1.4", "10.0.1.5"
	for _, tt := range []struct {
		name            string
		now, wish, want []lb.Backend
		less            bool
	}{
		{"nothing changes", backends(a, b), backends(a, b), backends(a, b), false},
		{"one more", backends(a), backends(a, b), backends(a), false},
		{"one less", backends(a, b), backends(b), backends(b), true},
		{"one for another", backends(a, b), backends(b, c), backends(b), true},
		{"one drains", backends(a, b), backends("-"+a, b), backends("-"+a, b), true},
		{"one drains no more", backends("-"+a, b), backends(a, b), backends("-"+a, b), false},
		{"the last goes", backends(a), nil, nil, true},
		{"the last drains", backends(a), backends("-" + a), backends("-" + a), true},
		{"all are others", backends(a, b), backends(c), backends(a, b), false},
		{"only one that drains would stay", backends("-"+a, b), backends("-"+a, c), backends("-"+a, b), false},
	} {
		now := []lb.Service{{Front: front, Backends: tt.now}}
		got, less := reduce(now, []lb.Service{{Front: front, Backends: tt.wish}})
		if less != tt.less || !reflect.DeepEqual(got[0].Backends, tt.want) {
			t.Errorf("%s: %v, less %v", tt.name, got[0].Backends, less)
		}
	}
	if _, less := reduce([]lb.Service{{Front: front, Backends: backends(a)}}, nil); less {
		t.Error("a service that ends is not reduced")
	}
}

func TestReducedSharesLists(t *testing.T) {
	now := []lb.Service{{Front: lb.Front{Port: 80}, Backends: []lb.Backend{{Port: 1}, {Port: 2}}}}
	wish := []lb.Service{{Front: lb.Front{Port: 80}, Backends: []lb.Backend{{Port: 2}}}}
	r := reduced{}
	first, _ := r.of(now, wish)
	again, less := r.of(now, wish)
	if !less || &first[0] != &again[0] {
		t.Error("the same lists are reduced twice")
	}
}
