package main

import (
	"strings"
	"testing"
	"time"

	"shoal/bench/load"
)

// TestLosses: of requests that failed meanwhile it is told whether that is a fault.
func TestLosses(t *testing.T) {
	lost := load.Bill{During: load.Tally{Requests: 288, Failures: []load.Sample{{}, {}}}, Took: 8 * time.Second, Last: 1700 * time.Millisecond}
	for _, row := range []struct {
		expected losses
		bill     load.Bill
		ends     string
	}{
		{toDeadHost, lost, "2 of 288 in the 8s until then, begun from +0s to +1.7s, as expected: a dead host's tasks are asked until the other hosts miss it"},
		{noLosses, lost, "begun from +0s to +1.7s, though none should"},
		{toDeadTask, load.Bill{Took: time.Second}, "0 of 0 in the 1s until then"},
		{noLosses, load.Bill{Took: time.Second}, "0 of 0 in the 1s until then"},
	} {
		if got := row.expected.of(row.bill); !strings.HasSuffix(got, row.ends) {
			t.Errorf("%q, want %q at its end", got, row.ends)
		}
	}
}
