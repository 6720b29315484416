package load

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var zero = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }

func request(began, ended int, failed string) Sample {
	return Sample{Began: at(began), Ended: at(ended), Route: "through h1", Failed: failed}
}

func TestAccount(t *testing.T) {
	samples := []Sample{
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
	b := Account(samples, at(100), at(400), at(1000))
	if b.During.Requests != 4 || len(b.During.Failures) != 3 {
		t.Errorf("during: %d requests, %d failed", b.During.Requests, len(b.During.Failures))
	}
	if b.After.Requests != 2 || len(b.After.Failures) != 1 || b.Clean() {
		t.Errorf("after: %d requests, %d failed, clean %v", b.After.Requests, len(b.After.Failures), b.Clean())
	}
	if b.Last != 200*time.Millisecond {
		t.Errorf("the last failure began at +%s", b.Last)
	}
	want := "1 of 2 requests failed afterwards; 3 of 4 in the 300ms until then, begun from +0s to +200ms"
	if b.String() != want {
		t.Errorf("Bill %q, want %q", b, want)
	}
}

func TestNothingAskedIsNotClean(t *testing.T) {
	b := Account([]Sample{request(150, 155, "")}, at(100), at(400), at(1000))
	if b.Clean() {
		t.Error("clean although nothing was asked afterwards")
	}
	if want := "0 of 0 requests failed afterwards; 0 of 1 in the 300ms until then"; b.String() != want {
		t.Errorf("Bill %q, want %q", b, want)
	}
}

// Every request that began from the event's beginning to the end of the watch is
// billed once, and every failure of these is in the Bill.
func TestAccountLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		times := rapid.SliceOfN(rapid.IntRange(0, 1000), 3, 3).Draw(t, "times")
		began, over, until := min(times[0], times[1], times[2]), 0, max(times[0], times[1], times[2])
		over = times[0] + times[1] + times[2] - began - until
		var samples []Sample
		requests, failures := 0, 0
		for i := range rapid.IntRange(0, 40).Draw(t, "samples") {
			s := request(rapid.IntRange(0, 1000).Draw(t, "began"), 0, "")
			s.Ended = s.Began.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "took")) * time.Millisecond)
			if i%3 == 0 {
				s.Failed = "lost"
			}
			if s.Ended.After(at(began)) && s.Began.Before(at(until)) {
				requests++
				if s.Failed != "" {
					failures++
				}
			}
			samples = append(samples, s)
		}
		b := Account(samples, at(began), at(over), at(until))
		if got := b.During.Requests + b.After.Requests; got != requests {
			t.Fatalf("%d requests billed, %d made", got, requests)
		}
		if got := len(b.During.Failures) + len(b.After.Failures); got != failures {
			t.Fatalf("%d failures billed, %d seen", got, failures)
		}
	})
}

func TestDetails(t *testing.T) {
	failures := []Sample{request(150, 155, "connection refused"), request(180, 1180, "no answer"), request(120, 125, "connection refused")}
	want := strings.Join([]string{
		"2 × through h1: connection refused, begun at +20ms to +50ms",
		"1 × through h1: no answer, begun at +80ms to +80ms",
		"",
	}, "\n")
	if got := Details(failures, at(100)); got != want {
		t.Errorf("details\n%s\nwant\n%s", got, want)
	}
	if got := Details(nil, at(0)); got != "" {
		t.Errorf("details of nothing: %q", got)
	}
}

func TestRound(t *testing.T) {
	for in, want := range map[time.Duration]string{
		1234567 * time.Nanosecond:  "1ms",
		1234567 * time.Microsecond: "1.23s",
		12345 * time.Millisecond:   "12.3s",
		0:                          "0s",
	} {
		if got := Round(in).String(); got != want {
			t.Errorf("Round(%d) is %s, want %s", in, got, want)
		}
	}
}
