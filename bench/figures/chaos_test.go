package main

import (
	"testing"
	"time"

	"shoal/bench/load"
)

var zero = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func lost(route string, began, ended time.Duration) load.Sample {
	return load.Sample{Route: route, Began: zero.Add(began), Ended: zero.Add(ended), Failed: "connection refused"}
}

func TestSettleExplains(t *testing.T) {
	const ms = time.Millisecond
	deaths := []death{{at: zero.Add(time.Second), until: zero.Add(4 * time.Second), off: []string{"through h2"}}}
	taken := []load.Sample{
		lost("through h1", 990*ms, 1010*ms),  // in flight
		lost("through h1", 1300*ms, 1310*ms), // not yet known
		lost("through h2", 3000*ms, 3900*ms), // its host is off
		{Route: "through h1", Began: zero.Add(1400 * ms), Ended: zero.Add(1410 * ms)},
	}
	toll := &toll{name: "task", late: time.Second, deaths: deaths}
	if n := len(toll.settle(taken)); n != 0 {
		t.Errorf("%d unexplained, all are explained", n)
	}
	if n := len(toll.settle(append(taken, lost("through h1", 2500*ms, 2510*ms)))); n != 1 {
		t.Errorf("%d unexplained, one began long after the death", n)
	}
	toll.deaths = append(toll.deaths, death{at: zero.Add(2505 * ms), until: zero.Add(5 * time.Second)})
	if n := len(toll.settle(append(taken, lost("through h1", 2500*ms, 2510*ms)))); n != 0 {
		t.Errorf("%d unexplained, the next death explains it", n)
	}
	toll.deaths = []death{{at: zero.Add(time.Second), until: zero.Add(4 * time.Second), all: true}}
	if n := len(toll.settle(append(taken, lost("through h1", 2500*ms, 2510*ms)))); n != 0 {
		t.Errorf("%d unexplained, nobody was left to answer", n)
	}
	stray := lost("through h1", 500*ms, 510*ms)
	if out := outsideAll(append(taken, stray), deaths); len(out) != 1 || out[0] != stray {
		t.Errorf("at no death's time failed %v", out)
	}
}
