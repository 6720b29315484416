package netview

import (
	"fmt"
	"slices"
	"strings"

	"shoal/dataplane/probe"
	"shoal/dataplane/trace"
)

// compare finds the planned way that the packet took, and where it left it.
func (l *Live) compare(paths []trace.Path, blind []string) {
	for i, p := range paths {
		if l.ends(p) {
			l.Way = i + 1
			l.Differs = l.along(p, blind)
			return
		}
	}
	for i, p := range paths {
		if node, _, _ := strings.Cut(p.At, "/"); slices.Contains(blind, node) {
			l.Way = i + 1
			l.Differs = "what happened at " + node + " was not seen"
			return
		}
	}
	l.Differs = "it was seen nowhere"
	if n := len(l.Seen); n > 0 {
		at := l.Seen[n-1]
		l.Differs = fmt.Sprintf("it was seen last at %s on %s, on its way to %s: none of the planned ways ends there", at.Where, at.Link, at.Dst)
	}
}

// ends says whether the packet came to where the way ends.
func (l *Live) ends(p trace.Path) bool {
	switch p.Verdict {
	case trace.Delivered, trace.Refused, trace.Left:
		if slices.ContainsFunc(l.Seen, func(at Sighting) bool { return at.Where == p.At && at.Dst == p.Dst && at.VNI == 0 }) {
			return true
		}
		// A refusal by the sender's own kernel shows on no link.
		return p.Verdict == trace.Refused && len(l.Seen) == 0 && l.Outcome == string(probe.Refused)
	case trace.NoRoute, trace.Dropped:
		return l.Outcome == string(probe.NoRoute) || l.Outcome == string(probe.Silence)
	}
	return false
}

// along says where the packet did otherwise than the way, "" where it did not.
func (l *Live) along(p trace.Path, blind []string) string {
	last := ""
	for _, h := range p.Hops {
		node, _, _ := strings.Cut(h.Where, "/")
		if h.Where == last || slices.Contains(blind, node) || len(l.Seen) == 0 {
			continue
		}
		last = h.Where
		if !slices.ContainsFunc(l.Seen, func(at Sighting) bool { return at.Where == h.Where }) {
			return fmt.Sprintf("the plan passes %s, where it was not seen", h.Where)
		}
	}
	for _, at := range l.Seen {
		if at.Where == p.At && at.Dst == p.Dst && p.Src.IsValid() && p.Verdict == trace.Delivered && at.Src.Addr() != p.Src {
			return fmt.Sprintf("%s sees %s as the client, planned was %s", p.At, at.Src.Addr(), p.Src)
		}
	}
	return verdictDiffers(p, l.Outcome)
}

// verdictDiffers compares what the sender learnt with the verdict.
func verdictDiffers(p trace.Path, outcome string) string {
	var expected []probe.Outcome
	switch p.Verdict {
	case trace.Delivered: // a datagram need not be answered
		expected = []probe.Outcome{probe.Connected, probe.Answered}
		if outcome == string(probe.Silence) {
			return fmt.Sprintf("it arrived at %s, and nothing came back", p.At)
		}
	case trace.Refused:
		expected = []probe.Outcome{probe.Refused}
	case trace.NoRoute:
		expected = []probe.Outcome{probe.NoRoute, probe.Silence}
	default:
		return ""
	}
	if slices.Contains(expected, probe.Outcome(outcome)) {
		return ""
	}
	return fmt.Sprintf("planned was %q, but the sender learnt %q", p.Verdict, outcome)
}
