package server

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestCounts: what is counted by kind and outcome adds up, and has a duration.
func TestCounts(t *testing.T) {
	var s Server
	now := time.Now()
	s.stats.count(local, dns.TypeA, now)
	s.stats.count(local, dns.TypeAAAA, now.Add(-20*time.Millisecond))
	s.stats.count(forwarded, dns.TypeSRV, now.Add(-time.Hour))
	s.stats.count(failed, dns.TypeMX, now)
	s.stats.count(refused, dns.TypeNone, now)
	c := s.Counts()
	if c.Local != 2 || c.Forwarded != 1 || c.Failed != 1 || c.Refused != 1 {
		t.Errorf("sums are %+v", c)
	}
	if c.Queries["A"]["local"] != 1 || c.Queries["SRV"]["forwarded"] != 1 || c.Queries["other"]["failed"] != 1 || c.Queries["other"]["refused"] != 1 {
		t.Errorf("by kind %v", c.Queries)
	}
	took := c.Took["local"]
	if len(took.Buckets) != len(TookBounds)+1 || took.Buckets[4] != 1 || took.Seconds < 0.02 {
		t.Errorf("answers from the zone took %+v", took)
	}
	if b := c.Took["forwarded"].Buckets; b[len(b)-1] != 1 {
		t.Errorf("an hour is in none but the last bucket: %v", b)
	}
}

// BenchmarkCount is what counting costs a question.
func BenchmarkCount(b *testing.B) {
	var s Server
	for b.Loop() {
		s.stats.count(local, dns.TypeA, time.Now())
	}
}
