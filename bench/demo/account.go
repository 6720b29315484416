package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// tally counts requests of one stretch of time.
type tally struct {
	requests int
	failures []sample
}

func (t *tally) add(s sample) {
	t.requests++
	if s.failed != "" {
		t.failures = append(t.failures, s)
	}
}

// bill is what an event cost. A request belongs to the time at which it began:
// one that began before the event was over is part of during, however late it
// failed.
type bill struct {
	during, after tally
	// last is how long after the event's beginning the last request began that
	// failed during it; zero when none did.
	last time.Duration
}

// account bills an event that began and was over at two times, and was watched
// until a third.
func account(samples []sample, began, over, until time.Time) bill {
	var b bill
	for _, s := range samples {
		switch {
		case s.began.Before(began) && !s.ended.After(began), !s.began.Before(until):
			continue
		case s.began.Before(over):
			b.during.add(s)
		default:
			b.after.add(s)
		}
	}
	for _, list := range [][]sample{b.during.failures, b.after.failures} {
		slices.SortFunc(list, func(x, y sample) int { return x.began.Compare(y.began) })
	}
	if n := len(b.during.failures); n > 0 {
		b.last = max(b.during.failures[n-1].began.Sub(began), 0)
	}
	return b
}

// clean reports whether requests were made after the event and all were answered.
func (b bill) clean() bool { return b.after.requests > 0 && len(b.after.failures) == 0 }

// String is the bill in one line.
func (b bill) String() string {
	text := fmt.Sprintf("%d of %d requests failed meanwhile", len(b.during.failures), b.during.requests)
	if len(b.during.failures) > 0 {
		text += fmt.Sprintf(", the last began at +%s", round(b.last))
	}
	return text + fmt.Sprintf("; %d of %d afterwards", len(b.after.failures), b.after.requests)
}

// details groups failures by route and reason, with the first and last time of
// each since an event began.
func details(failures []sample, began time.Time) string {
	type group struct {
		route, reason string
		first, last   time.Duration
		n             int
	}
	groups := map[[2]string]*group{}
	for _, s := range failures {
		at := s.began.Sub(began)
		g := groups[[2]string{s.route, s.failed}]
		if g == nil {
			g = &group{route: s.route, reason: s.failed, first: at, last: at}
			groups[[2]string{s.route, s.failed}] = g
		}
		g.n++
		g.first, g.last = min(g.first, at), max(g.last, at)
	}
	list := make([]*group, 0, len(groups))
	for _, g := range groups {
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.route, b.route), cmp.Compare(a.reason, b.reason))
	})
	var text strings.Builder
	for _, g := range list {
		fmt.Fprintf(&text, "%d × %s: %s, begun at +%s to +%s\n", g.n, g.route, g.reason, round(g.first), round(g.last))
	}
	return text.String()
}
