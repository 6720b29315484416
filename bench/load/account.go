package load

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Tally counts requests of one stretch of time.
type Tally struct {
	Requests int
	Failures []Sample
}

func (t *Tally) add(s Sample) {
	t.Requests++
	if s.Failed != "" {
		t.Failures = append(t.Failures, s)
	}
}

// Bill is what an event cost. A request belongs to the time at which it began:
// one that began before the event was over is part of During, however late it
// failed.
type Bill struct {
	During, After Tally
	// Took is how long it went on.
	Took time.Duration
	// First and Last are how long after the event's beginning the first and the last
	// request began that failed during it; zero when none did.
	First, Last time.Duration
}

// Account bills an event that began and was over at two times, and was watched
// until a third.
func Account(samples []Sample, began, over, until time.Time) Bill {
	b := Bill{Took: over.Sub(began)}
	for _, s := range samples {
		switch {
		case s.Began.Before(began) && !s.Ended.After(began), !s.Began.Before(until):
			continue
		case s.Began.Before(over):
			b.During.add(s)
		default:
			b.After.add(s)
		}
	}
	for _, list := range [][]Sample{b.During.Failures, b.After.Failures} {
		slices.SortFunc(list, func(x, y Sample) int { return x.Began.Compare(y.Began) })
	}
	if n := len(b.During.Failures); n > 0 {
		b.First = max(b.During.Failures[0].Began.Sub(began), 0)
		b.Last = max(b.During.Failures[n-1].Began.Sub(began), 0)
	}
	return b
}

// Clean reports whether requests were made after the event and all were answered.
func (b Bill) Clean() bool { return b.After.Requests > 0 && len(b.After.Failures) == 0 }

// String is the Bill in one line.
func (b Bill) String() string {
	text := fmt.Sprintf("%d of %d requests failed afterwards; %d of %d in the %s until then",
		len(b.After.Failures), b.After.Requests, len(b.During.Failures), b.During.Requests, Round(b.Took))
	if len(b.During.Failures) > 0 {
		text += fmt.Sprintf(", begun from +%s to +%s", Round(b.First), Round(b.Last))
	}
	return text
}

// Details groups failures by route and reason, with the first and last time of
// each since an event began.
func Details(failures []Sample, began time.Time) string {
	type group struct {
		route, reason string
		first, last   time.Duration
		n             int
	}
	groups := map[[2]string]*group{}
	for _, s := range failures {
		at := s.Began.Sub(began)
		g := groups[[2]string{s.Route, s.Failed}]
		if g == nil {
			g = &group{route: s.Route, reason: s.Failed, first: at, last: at}
			groups[[2]string{s.Route, s.Failed}] = g
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
		fmt.Fprintf(&text, "%d × %s: %s, begun at +%s to +%s\n", g.n, g.route, g.reason, Round(g.first), Round(g.last))
	}
	return text.String()
}

// Round shortens a duration to what a reader can use.
func Round(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	default:
		return d.Round(time.Millisecond)
	}
}
