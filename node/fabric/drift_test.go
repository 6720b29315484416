package fabric

import (
	"strings"
	"testing"
	"time"

	"shoal/dataplane/lb"
)

// TestDamageShowsAndIsRemembered: what somebody deletes shows as drift until the
// next full step, and as a repair afterwards.
func TestDamageShowsAndIsRemembered(t *testing.T) {
	b := newBed(t)
	b.record("t1", "10.0.1.3")
	if err := b.attach(t, aTask("t1", "10.0.1.3/24")); err != nil {
		t.Fatal(err)
	}
	ns := b.Locals()[0].Namespace
	clean := func(when string) {
		t.Helper()
		if got, err := b.Drift(t.Context()); err != nil || len(got) > 0 {
			t.Errorf("%s there is drift: %q %v", when, got, err)
		}
	}
	clean("after the first step")
	if last, total := b.Repairs(); len(last) > 0 || total[PartBalancer] != 0 {
		t.Errorf("what the first step made counts as repaired: %+v %v", last, total)
	}
	b.kernel.translations[ns] = lb.Translation{}
	b.kernel.balancer.Flush(ns)
	drift, err := b.Drift(t.Context())
	text := strings.Join(drift, "\n")
	for _, want := range []string{"add redirect 127.0.0.11:53/udp to 127.0.0.11:", "add service 10.0.1.2 (web) rr", "add backend 10.0.1.3"} {
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("%q does not show (%v):\n%s", want, err, text)
		}
	}
	b.fullSync = time.Time{} // the time for a full step has come
	if err := b.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	clean("after the repair")
	last, total := b.Repairs()
	if len(last) != 2 || total[PartBalancer] != 2 || last[0].Namespace != ns || last[1].Change != "add service 10.0.1.2 (web) rr" {
		t.Errorf("repairs are %+v, %v", last, total)
	}
}

func TestRepairsAreBounded(t *testing.T) {
	var r repairs
	for range repairsKept + 10 {
		r.note(PartOverlay, "", "x")
	}
	if len(r.last) != repairsKept || r.total[PartOverlay] != repairsKept+10 {
		t.Errorf("%d kept of %v", len(r.last), r.total)
	}
}

// TestProgrammed: only a step with another wish tells how long it took.
func TestProgrammed(t *testing.T) {
	b := newBed(t)
	told := 0
	b.cfg.Programmed = func(time.Duration) { told++ }
	for _, change := range []bool{true, false} {
		if change {
			b.record("t1", "10.0.1.3")
			if err := b.attach(t, aTask("t1", "10.0.1.3/24")); err != nil {
				t.Fatal(err)
			}
		} else if err := b.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.settled(time.Millisecond)
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}
