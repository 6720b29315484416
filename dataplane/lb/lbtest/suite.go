// Package lbtest is the test suite that every lb.Driver must pass. Suite always
// asks for the behaviour of the tables; where the driver has a real kernel below
// it, it also builds small networks of namespaces and looks at what real packets
// do.
package lbtest

import (
	"context"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"shoal/dataplane/lb"
)

// Caps says what can be asked of a driver.
type Caps struct {
	// Packets: namespaces are real and packets flow.
	Packets bool
	// Algorithms that the driver supports, beyond rr.
	Algorithms []lb.Algorithm
	// Trample damages what the driver made in a namespace, one way each.
	Trample map[string]func(t *testing.T, namespace string)
	// Forgets: a client that a service keeps is forgotten in time although its
	// flows are remembered longer.
	Forgets bool
	// SCTP skips a test where the kernel has no such sockets; nil where nothing
	// could use them.
	SCTP func(t *testing.T)
	// Slow multiplies the patience of the suite, for emulated machines.
	Slow int
}

// Suite asks a driver for everything lb.Driver promises.
func Suite(t *testing.T, newDriver func(t *testing.T) lb.Driver, caps Caps) {
	s := &suite{newDriver: newDriver, caps: caps}
	tests := map[string]func(*testing.T){
		"repeated apply changes nothing": s.repeated,
		"every change is read back":      s.changes,
		"impossible wishes are refused":  s.impossible,
		"algorithms":                     s.algorithms,
		"namespaces are apart":           s.apart,
		"trampled tables heal":           s.trampled,
		"many services":                  s.many,
	}
	for name, test := range tests {
		t.Run(name, test)
	}
	if caps.Packets {
		t.Run("packets", s.packets)
	}
	if caps.SCTP != nil {
		t.Run("sctp", func(t *testing.T) {
			caps.SCTP(t)
			s.sctp(t)
		})
	}
}

type suite struct {
	newDriver func(t *testing.T) lb.Driver
	caps      Caps
}

// patience is how long the suite waits for what should happen at once.
func (s *suite) patience() time.Duration { return 5 * time.Second * time.Duration(max(1, s.caps.Slow)) }

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// sample is a wish with every kind of service in it.
func sample(namespace string) lb.Desired {
	return lb.Desired{Namespace: namespace, MasqueradeFrom: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd09::/64")}, Services: []lb.Service{
		{Front: lb.Front{Addr: addr("10.9.1.2")}, Name: "web", Backends: []lb.Backend{
			{Addr: addr("10.9.1.11"), Task: "web.1"}, {Addr: addr("10.9.1.12"), Task: "web.2", Draining: true}, {Addr: addr("10.9.1.13")}}},
		{Front: lb.Front{Addr: addr("10.9.1.3"), Port: 8080, Protocol: lb.TCP}, Name: "api", Backends: []lb.Backend{
			{Addr: addr("10.9.1.11"), Port: 80}, {Addr: addr("10.9.1.11"), Port: 81}}},
		{Front: lb.Front{Addr: addr("10.9.1.3"), Port: 8080, Protocol: lb.UDP}, Name: "api", Masquerade: true, Backends: []lb.Backend{
			{Addr: addr("10.9.1.11"), Port: 80}}},
		{Front: lb.Front{Addr: addr("10.9.1.2"), Port: 53, Protocol: lb.UDP}, Name: "dns", Backends: []lb.Backend{
			{Addr: addr("10.9.1.12"), Port: 5353}}},
		{Front: lb.Front{Addr: addr("10.9.1.4")}, Name: "empty"},
		{Front: lb.Front{Addr: addr("10.9.1.5")}, Name: "drained", Backends: []lb.Backend{{Addr: addr("10.9.1.11"), Draining: true}}},
		{Front: lb.Front{Addr: addr("fd09::2")}, Name: "six", Backends: []lb.Backend{
			{Addr: addr("fd09::11")}, {Addr: addr("fd09::12")}}},
		{Front: lb.Front{Addr: addr("fd09::3"), Port: 443, Protocol: lb.TCP}, Name: "six", Sticky: time.Minute, Backends: []lb.Backend{
			{Addr: addr("fd09::11"), Port: 8443}, {Addr: addr("fd09::12"), Port: 8443, Draining: true}}},
	}}
}

// apply applies and checks that the kernel then has exactly the wish, and that
// asking again changes nothing. It returns how many objects changed.
func apply(t *testing.T, d lb.Driver, wish lb.Desired) int {
	t.Helper()
	changed, err := d.Apply(context.Background(), wish)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	checkRead(t, d, wish)
	again, err := d.Apply(context.Background(), wish)
	if err != nil || again != 0 {
		t.Fatalf("applied again: %d objects changed, %v; want none", again, err)
	}
	return changed
}

func checkRead(t *testing.T, d lb.Driver, wish lb.Desired) {
	t.Helper()
	have, err := d.Read(context.Background(), wish.Namespace)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	want, err := wish.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if have, err = have.Canonical(); err != nil {
		t.Fatalf("what was read is not canonical: %v", err)
	}
	if ops := lb.Plan(want, have); len(ops) > 0 {
		t.Fatalf("after apply the kernel still differs: %v", ops)
	}
	if have.Namespace != wish.Namespace {
		t.Fatalf("read namespace %q, want %q", have.Namespace, wish.Namespace)
	}
}

func (s *suite) repeated(t *testing.T) {
	d, ns := s.newDriver(t), s.namespace(t)
	if n := apply(t, d, sample(ns)); n == 0 {
		t.Error("the first apply says that nothing changed")
	}
	if n := apply(t, d, sample(ns)); n != 0 {
		t.Errorf("the same wish changed %d objects", n)
	}
	if n := apply(t, d, lb.Desired{Namespace: ns}); n == 0 {
		t.Error("dropping everything says that nothing changed")
	}
	if n := apply(t, d, lb.Desired{Namespace: ns}); n != 0 {
		t.Errorf("dropping nothing changed %d objects", n)
	}
}

// changes walks through single changes, each of which must be read back.
func (s *suite) changes(t *testing.T) {
	d, ns := s.newDriver(t), s.namespace(t)
	w := sample(ns)
	apply(t, d, w)
	steps := []struct {
		name   string
		change func()
		want   int // objects changed
	}{
		{"drain one", func() { w.Services[0].Backends[0].Draining = true }, 1},
		{"take it back", func() { w.Services[0].Backends[0].Draining = false }, 1},
		{"add one", func() { w.Services[4].Backends = []lb.Backend{{Addr: addr("10.9.1.14")}} }, 1},
		{"remove one", func() { w.Services[1].Backends = w.Services[1].Backends[:1] }, 1},
		{"weight", func() { w.Services[0].Backends[2].Weight = 7 }, 1},
		{"exchange one", func() { w.Services[3].Backends[0].Addr = addr("10.9.1.13") }, 2},
		{"to zero", func() { w.Services[6].Backends = nil }, 2},
		{"back", func() { w.Services[6].Backends = []lb.Backend{{Addr: addr("fd09::13")}} }, 1},
		{"keep clients", func() { w.Services[0].Sticky = time.Hour }, 1},
		{"drain where clients are kept", func() { w.Services[0].Backends[0].Draining = true }, 1},
		{"keep them longer", func() { w.Services[0].Sticky = 2 * time.Hour }, 1},
		{"keep none", func() { w.Services[0].Sticky = 0 }, 1},
		{"remove service", func() { w.Services = w.Services[:7] }, 1},
		{"masquerade fewer", func() { w.MasqueradeFrom = w.MasqueradeFrom[:1] }, 1},
		{"hide one service's clients", func() { w.Services[1].Masquerade = true }, 1},
		{"show them again", func() { w.Services[1].Masquerade = false }, 1},
		{"masquerade one service", func() { w.MasqueradeFrom = nil }, 1},
		{"no masquerade", func() { w.Services[2].Masquerade = false }, 1},
	}
	for _, step := range steps {
		step.change()
		if n := apply(t, d, w); n != step.want {
			t.Errorf("%s: %d objects changed, want %d", step.name, n, step.want)
		}
	}
}

func (s *suite) impossible(t *testing.T) {
	d, ns := s.newDriver(t), s.namespace(t)
	before := sample(ns)
	apply(t, d, before)
	front := lb.Front{Addr: addr("10.9.1.2")}
	for name, services := range map[string][]lb.Service{
		"front twice":        {{Front: front}, {Front: front}},
		"backend twice":      {{Front: front, Backends: []lb.Backend{{Addr: addr("10.9.1.11")}, {Addr: addr("10.9.1.11")}}}},
		"families mixed":     {{Front: front, Backends: []lb.Backend{{Addr: addr("fd09::11")}}}},
		"port without proto": {{Front: lb.Front{Addr: front.Addr, Port: 80}}},
		"proto without port": {{Front: lb.Front{Addr: front.Addr, Protocol: lb.TCP}}},
		"no address":         {{}},
		"kept too long":      {{Front: front, Sticky: lb.StickyMax + time.Second}},
		"kept for a part":    {{Front: front, Sticky: time.Millisecond}},
		"every port hidden":  {{Front: front, Masquerade: true}},
		"unknown algorithm":  {{Front: front, Algorithm: "best"}},
	} {
		if n, err := d.Apply(context.Background(), lb.Desired{Namespace: ns, Services: services}); err == nil || n != 0 {
			t.Errorf("%s: changed %d, error %v; want a refusal", name, n, err)
		}
	}
	checkRead(t, d, before)
}

func (s *suite) algorithms(t *testing.T) {
	d, ns := s.newDriver(t), s.namespace(t)
	supported := map[lb.Algorithm]bool{"": true, lb.RoundRobin: true}
	for _, a := range s.caps.Algorithms {
		supported[a] = true
	}
	for _, a := range append([]lb.Algorithm{""}, lb.Algorithms...) {
		w := sample(ns)
		for i := range w.Services {
			w.Services[i].Algorithm = a
			for j := range w.Services[i].Backends {
				w.Services[i].Backends[j].Weight = uint32(1 + 2*j)
			}
		}
		if !supported[a] {
			if _, err := d.Apply(context.Background(), w); err == nil || d.Supports(a) == nil {
				t.Errorf("%q is not supported but was applied", a)
			}
			continue
		}
		if err := d.Supports(a); err != nil {
			t.Errorf("%q: %v", a, err)
			continue
		}
		apply(t, d, w)
	}
}

func (s *suite) apart(t *testing.T) {
	d, one, two := s.newDriver(t), s.namespace(t), s.namespace(t)
	apply(t, d, sample(one))
	apply(t, d, lb.Desired{Namespace: two, Services: sample(two).Services[:1]})
	checkRead(t, d, sample(one))
	apply(t, d, lb.Desired{Namespace: one})
	checkRead(t, d, lb.Desired{Namespace: two, Services: sample(two).Services[:1]})
}

func (s *suite) trampled(t *testing.T) {
	for name, trample := range s.caps.Trample {
		t.Run(name, func(t *testing.T) {
			d, ns := s.newDriver(t), s.namespace(t)
			apply(t, d, sample(ns))
			trample(t, ns)
			if n := apply(t, d, sample(ns)); n == 0 {
				t.Error("nothing was healed")
			}
			trample(t, ns)
			apply(t, d, lb.Desired{Namespace: ns})
			have, err := d.Read(context.Background(), ns)
			if err != nil || !reflect.DeepEqual(have.Services, []lb.Service(nil)) {
				t.Errorf("after dropping all: %v, %v", have, err)
			}
		})
	}
}

// many: a table far larger than one message of a default socket buffer.
func (s *suite) many(t *testing.T) {
	const services, backends = 200, 6
	d, ns := s.newDriver(t), s.namespace(t)
	w := lb.Desired{Namespace: ns}
	for i := range services {
		svc := lb.Service{Front: lb.Front{Addr: netip.AddrFrom4([4]byte{10, 8, 0, byte(i)})}, Name: "many"}
		for j := range backends {
			svc.Backends = append(svc.Backends, lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 8, byte(1 + j), byte(i)}), Task: "many.1"})
		}
		w.Services = append(w.Services, svc)
	}
	apply(t, d, w)
	w.Services[7].Backends[3].Draining = true
	if n := apply(t, d, w); n != 1 {
		t.Errorf("draining one backend changed %d objects", n)
	}
	apply(t, d, lb.Desired{Namespace: ns})
}
