package lb_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"shoal/dataplane/lb"
	"shoal/dataplane/lb/lbfake"
)

// either returns a pair whose first cannot count connections.
func either() (e *lb.Either, first, second *lbfake.Driver) {
	first, second = lbfake.New(), lbfake.New()
	first.Unsupported = []lb.Algorithm{lb.LeastConn, lb.WeightedLeastConn}
	return lb.NewEither(first, second), first, second
}

func asks(algorithms ...lb.Algorithm) lb.Desired {
	d := lb.Desired{Namespace: "/ns"}
	for i, a := range algorithms {
		front := lb.Front{Addr: netip.AddrFrom4([4]byte{10, 0, 1, byte(i + 2)})}
		d.Services = append(d.Services, lb.Service{Front: front, Algorithm: a, Backends: []lb.Backend{{Addr: netip.MustParseAddr("10.0.1.9")}}})
	}
	return d
}

func has(t *testing.T, d lb.Driver) int {
	t.Helper()
	have, err := d.Read(t.Context(), "/ns")
	if err != nil {
		t.Fatal(err)
	}
	return len(have.Services)
}

// TestEither: each row is a series of wishes for one namespace, and how many services
// either driver has after each.
func TestEither(t *testing.T) {
	type state struct{ first, second int }
	for _, tt := range []struct {
		name   string
		before []lb.Algorithm // what the second has from an earlier process
		wishes [][]lb.Algorithm
		want   []state
	}{
		{"ordinary", nil, [][]lb.Algorithm{{lb.RoundRobin}, {lb.RoundRobin, lb.Maglev}}, []state{{1, 0}, {2, 0}}},
		{"one service counts connections", nil, [][]lb.Algorithm{{lb.RoundRobin, lb.LeastConn}}, []state{{0, 2}}},
		{"it comes later, and goes", nil, [][]lb.Algorithm{{lb.RoundRobin}, {lb.RoundRobin, lb.LeastConn}, {lb.RoundRobin}, nil, {lb.RoundRobin}}, []state{{1, 0}, {0, 2}, {0, 1}, {0, 0}, {1, 0}}},
		{"from an earlier process", []lb.Algorithm{lb.RoundRobin}, [][]lb.Algorithm{{lb.RoundRobin, lb.RoundRobin}, nil, {lb.RoundRobin}}, []state{{0, 2}, {0, 0}, {1, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, first, second := either()
			if tt.before != nil {
				if _, err := second.Apply(t.Context(), asks(tt.before...)); err != nil {
					t.Fatal(err)
				}
			}
			for i, wish := range tt.wishes {
				if _, err := e.Apply(t.Context(), asks(wish...)); err != nil {
					t.Fatal(err)
				}
				if got := (state{has(t, first), has(t, second)}); got != tt.want[i] {
					t.Errorf("after wish %d the drivers have %+v, want %+v", i, got, tt.want[i])
				}
				if n := has(t, e); n != len(wish) {
					t.Errorf("after wish %d it shows %d services of %d", i, n, len(wish))
				}
				if changed, err := e.Apply(t.Context(), asks(wish...)); changed != 0 || err != nil {
					t.Errorf("wish %d again changes %d (%v)", i, changed, err)
				}
			}
		})
	}
}

// heard notes whether flows were to be left alone.
type heard struct {
	lb.Driver
	handsOver bool
}

func (h *heard) Apply(ctx context.Context, d lb.Desired) (int, error) {
	h.handsOver = lb.HandsOver(ctx)
	return h.Driver.Apply(ctx, d)
}

// TestEitherCutsNobody: who lets go of a namespace leaves the flows alone, and only then.
func TestEitherCutsNobody(t *testing.T) {
	_, fake, second := either()
	first := &heard{Driver: fake}
	e := lb.NewEither(first, second)
	for _, step := range []struct {
		wish lb.Desired
		over bool
	}{{asks(lb.RoundRobin, lb.RoundRobin), false}, {asks(lb.RoundRobin), false}, {asks(lb.LeastConn), true}} {
		if _, err := e.Apply(t.Context(), step.wish); err != nil || first.handsOver != step.over {
			t.Errorf("%v hands over: %t (%v)", step.wish.Services, first.handsOver, err)
		}
	}
}

// TestEitherRefuses: what neither can do is refused by both, a driver that does not
// let go is asked again, and one that does not take over has not.
func TestEitherRefuses(t *testing.T) {
	e, first, second := either()
	second.Unsupported = []lb.Algorithm{lb.LeastConn}
	if e.Supports(lb.LeastConn) == nil || e.Supports(lb.WeightedLeastConn) != nil || e.Supports(lb.RoundRobin) != nil {
		t.Error("it supports what one of the two does")
	}
	apply := func(a lb.Algorithm) error { _, err := e.Apply(t.Context(), asks(a)); return err }
	if apply(lb.LeastConn) == nil {
		t.Error("balanced by what neither can do")
	}
	if err := apply(lb.RoundRobin); err != nil {
		t.Fatal(err)
	}
	refuse := func(lb.Op) error { return lbfake.ErrRefused }
	second.Refuse = refuse
	if err := apply(lb.WeightedLeastConn); !errors.Is(err, lbfake.ErrRefused) || has(t, e) != 1 || has(t, first) != 1 {
		t.Errorf("the second does not take over: %v, and %d services are shown", err, has(t, e))
	}
	if err := apply(lb.RoundRobin); err != nil || has(t, first) != 1 || has(t, second) != 0 {
		t.Errorf("back to what was: %v", err)
	}
	second.Refuse, first.Refuse = nil, refuse
	if err := apply(lb.WeightedLeastConn); !errors.Is(err, lbfake.ErrRefused) || has(t, second) != 1 {
		t.Errorf("the first does not let go: %v, the second has %d", err, has(t, second))
	}
	first.Refuse = nil
	if err := apply(lb.WeightedLeastConn); err != nil || has(t, first) != 0 {
		t.Errorf("the first has %d services (%v)", has(t, first), err)
	}
}
