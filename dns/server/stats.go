package server

import (
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// outcome is how a question ended.
type outcome int

// The outcomes.
const (
	local     outcome = iota // answered from the zone
	forwarded                // answered by another server
	failed                   // no other server had an answer
	refused                  // no question, or one too many
	outcomes
)

// outcomeNames are the words for outcomes, kindNames those for kinds of questions.
var (
	outcomeNames = [outcomes]string{"local", "forwarded", "failed", "refused"}
	kindNames    = [...]string{"A", "AAAA", "PTR", "SRV", "other"}
)

// TookBounds are the upper bounds of a Histogram's buckets in seconds; one bucket
// more is for what took longer.
var TookBounds = []float64{0.00001, 0.0001, 0.001, 0.01, 0.1, 0.5, 1, 2.5}

// stats count questions since the start.
type stats struct {
	n    [outcomes][len(kindNames)]atomic.Uint64
	took [outcomes]struct {
		buckets [9]atomic.Uint64
		nanos   atomic.Uint64
	}
}

func kindOf(kind uint16) int {
	switch kind {
	case dns.TypeA:
		return 0
	case dns.TypeAAAA:
		return 1
	case dns.TypePTR:
		return 2
	case dns.TypeSRV:
		return 3
	}
	return len(kindNames) - 1
}

// count notes how a question of the kind ended, and when it had come in.
func (s *stats) count(o outcome, kind uint16, since time.Time) {
	s.n[o][kindOf(kind)].Add(1)
	d := time.Since(since)
	i := 0
	for i < len(TookBounds) && d.Seconds() > TookBounds[i] {
		i++
	}
	s.took[o].buckets[i].Add(1)
	s.took[o].nanos.Add(uint64(d))
}

// Counts are the counters of a server at one moment.
type Counts struct {
	// Local were answered from the zone, Forwarded by another server, Failed by
	// none that was asked. Refused were not questions, or too many.
	Local, Forwarded, Refused, Failed uint64
	// Queries has the same by kind ("A", "AAAA", "PTR", "SRV", "other") and then by
	// outcome ("local", "forwarded", "failed", "refused").
	Queries map[string]map[string]uint64 `json:",omitempty"`
	// Took is how long answers took, by outcome; refusals are not timed.
	Took map[string]Histogram `json:",omitempty"`
}

// Histogram counts durations.
type Histogram struct {
	// Buckets count those up to the bound of TookBounds and above the one before.
	Buckets []uint64
	Seconds float64 // the sum
}

// Counts returns the server's counters.
func (s *Server) Counts() Counts {
	c := Counts{Queries: map[string]map[string]uint64{}, Took: map[string]Histogram{}}
	sums := [outcomes]*uint64{&c.Local, &c.Forwarded, &c.Failed, &c.Refused}
	for o := range outcomes {
		for k, kind := range kindNames {
			if c.Queries[kind] == nil {
				c.Queries[kind] = map[string]uint64{}
			}
			n := s.stats.n[o][k].Load()
			c.Queries[kind][outcomeNames[o]] = n
			*sums[o] += n
		}
		if o == refused {
			continue
		}
		h := Histogram{Seconds: time.Duration(s.stats.took[o].nanos.Load()).Seconds()}
		for i := range s.stats.took[o].buckets {
			h.Buckets = append(h.Buckets, s.stats.took[o].buckets[i].Load())
		}
		c.Took[outcomeNames[o]] = h
	}
	return c
}
