package main

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var zero = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }

func request(began, ended int, failed string) sample {
	return sample{began: at(began), ended: at(ended), route: "through h1", failed: failed}
}

func TestAccount(t *testing.T) {
	samples := []sample{
		request(0, 5, "connection refused"), // before the event
		request(90, 1090, "no answer"),      // in flight when it began
		request(150, 155, ""),
		request(300, 305, "connection refused"),
		request(199, 1199, "no answer"),
		request(400, 405, ""),                   // the moment it was over
		request(410, 415, "connection refused"), // after it
		request(1000, 1005, "connection reset"), // watched no longer
		request(2000, 2005, "connection refused"),
	}
	b := account(samples, at(100), at(400), at(1000))
	if b.during.requests != 4 || len(b.during.failures) != 3 {
		t.Errorf("during: %d requests, %d failed", b.during.requests, len(b.during.failures))
	}
	if b.after.requests != 2 || len(b.after.failures) != 1 || b.clean() {
		t.Errorf("after: %d requests, %d failed, clean %v", b.after.requests, len(b.after.failures), b.clean())
	}
	if b.last != 200*time.Millisecond {
		t.Errorf("the last failure began at +%s", b.last)
	}
	want := "3 of 4 requests failed meanwhile, the last began at +200ms; 1 of 2 afterwards"
	if b.String() != want {
		t.Errorf("bill %q, want %q", b, want)
	}
}

func TestNothingAskedIsNotClean(t *testing.T) {
	b := account([]sample{request(150, 155, "")}, at(100), at(400), at(1000))
	if b.clean() {
		t.Error("clean although nothing was asked afterwards")
	}
	if want := "0 of 1 requests failed meanwhile; 0 of 0 afterwards"; b.String() != want {
		t.Errorf("bill %q, want %q", b, want)
	}
}

// Every request that began from the event's beginning to the end of the watch is
// billed once, and every failure of these is in the bill.
func TestAccountLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		times := rapid.SliceOfN(rapid.IntRange(0, 1000), 3, 3).Draw(t, "times")
		began, over, until := min(times[0], times[1], times[2]), 0, max(times[0], times[1], times[2])
		over = times[0] + times[1] + times[2] - began - until
		var samples []sample
		requests, failures := 0, 0
		for i := range rapid.IntRange(0, 40).Draw(t, "samples") {
			s := request(rapid.IntRange(0, 1000).Draw(t, "began"), 0, "")
			s.ended = s.began.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "took")) * time.Millisecond)
			if i%3 == 0 {
				s.failed = "lost"
			}
			if s.ended.After(at(began)) && s.began.Before(at(until)) {
				requests++
				if s.failed != "" {
					failures++
				}
			}
			samples = append(samples, s)
		}
		b := account(samples, at(began), at(over), at(until))
		if got := b.during.requests + b.after.requests; got != requests {
			t.Fatalf("%d requests billed, %d made", got, requests)
		}
		if got := len(b.during.failures) + len(b.after.failures); got != failures {
			t.Fatalf("%d failures billed, %d seen", got, failures)
		}
	})
}

func TestDetails(t *testing.T) {
	failures := []sample{request(150, 155, "connection refused"), request(180, 1180, "no answer"), request(120, 125, "connection refused")}
	want := strings.Join([]string{
		"2 × through h1: connection refused, begun at +20ms to +50ms",
		"1 × through h1: no answer, begun at +80ms to +80ms",
		"",
	}, "\n")
	if got := details(failures, at(100)); got != want {
		t.Errorf("details\n%s\nwant\n%s", got, want)
	}
	if got := details(nil, at(0)); got != "" {
		t.Errorf("details of nothing: %q", got)
	}
}

func TestLongestGap(t *testing.T) {
	acks := []write{{ended: at(0)}, {ended: at(900)}, {ended: at(910)}, {ended: at(1400)}, {ended: at(1410)}}
	if got := longestGap(acks, at(1000)); got != 490*time.Millisecond {
		t.Errorf("gap %s", got)
	}
	if got := longestGap(acks, at(100)); got != 900*time.Millisecond {
		t.Errorf("gap over the time it is looked from: %s", got)
	}
	if got := longestGap(acks[:1], at(0)); got != 0 {
		t.Errorf("gap of one write: %s", got)
	}
}
