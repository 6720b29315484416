package lbfake_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"shoal/dataplane/lb"
	"shoal/dataplane/lb/lbfake"
	"shoal/dataplane/lb/lbtest"
)

func TestSuite(t *testing.T) {
	var d *lbfake.Driver
	lbtest.Suite(t, func(*testing.T) lb.Driver {
		d = lbfake.New()
		d.Unsupported = []lb.Algorithm{lb.Maglev}
		return d
	}, lbtest.Caps{
		Algorithms: []lb.Algorithm{lb.WeightedRoundRobin, lb.LeastConn, lb.WeightedLeastConn, lb.SourceHash},
		Trample:    map[string]func(*testing.T, string){"flush": func(_ *testing.T, ns string) { d.Flush(ns) }},
	})
}

// TestRefusals: what the kernel answers with EEXIST and ENOENT is refused.
func TestRefusals(t *testing.T) {
	d := lbfake.New()
	s := lb.Service{Front: lb.Front{Addr: netip.MustParseAddr("10.0.0.2")}}
	b := lb.Backend{Addr: netip.MustParseAddr("10.0.0.3")}
	for _, step := range []struct {
		op   lb.Op
		want error
	}{
		{lb.Op{Kind: lb.AddBackend, Service: s, Backend: b}, lb.ErrMissing},
		{lb.Op{Kind: lb.RemoveService, Service: s}, lb.ErrMissing},
		{lb.Op{Kind: lb.AddService, Service: s}, nil},
		{lb.Op{Kind: lb.AddService, Service: s}, lb.ErrExists},
		{lb.Op{Kind: lb.SetBackend, Service: s, Backend: b}, lb.ErrMissing},
		{lb.Op{Kind: lb.AddBackend, Service: s, Backend: b}, nil},
		{lb.Op{Kind: lb.AddBackend, Service: s, Backend: b}, lb.ErrExists},
		{lb.Op{Kind: lb.RemoveBackend, Service: s, Backend: b}, nil},
		{lb.Op{Kind: lb.RemoveBackend, Service: s, Backend: b}, lb.ErrMissing},
	} {
		if err := d.Do("x", step.op); !errors.Is(err, step.want) {
			t.Errorf("%s: %v, want %v", step.op, err, step.want)
		}
	}
}

// TestEveryCrash lets each operation of a change fail in turn: a service that has
// backends before and after has some all the time, and the next round heals.
func TestEveryCrash(t *testing.T) {
	front := lb.Front{Addr: netip.MustParseAddr("10.0.0.2")}
	before := lb.Desired{Services: []lb.Service{{Front: front, Backends: []lb.Backend{{Addr: netip.MustParseAddr("10.0.0.3")}, {Addr: netip.MustParseAddr("10.0.0.4")}}}}}
	after := lb.Desired{Services: []lb.Service{{Front: front, Backends: []lb.Backend{{Addr: netip.MustParseAddr("10.0.0.5")}, {Addr: netip.MustParseAddr("10.0.0.6")}}}}}
	for k := range 4 {
		d := lbfake.New()
		if _, err := d.Apply(context.Background(), before); err != nil {
			t.Fatal(err)
		}
		left := k
		d.Refuse = func(lb.Op) error {
			if left--; left < 0 {
				return lbfake.ErrRefused
			}
			return nil
		}
		if n, err := d.Apply(context.Background(), after); !errors.Is(err, lbfake.ErrRefused) || n != k {
			t.Fatalf("crash at %d: %d, %v", k, n, err)
		}
		have, _ := d.Read(context.Background(), "")
		if len(have.Services[0].Backends) == 0 {
			t.Errorf("crash at %d leaves the service without backends", k)
		}
		d.Refuse = nil
		if _, err := d.Apply(context.Background(), after); err != nil {
			t.Fatal(err)
		}
		if n, _ := d.Apply(context.Background(), after); n != 0 {
			t.Errorf("crash at %d does not heal", k)
		}
	}
}
