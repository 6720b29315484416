package main

import (
	"testing"
	"time"
)

func at(ms int) time.Time {
	return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(ms) * time.Millisecond)
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
