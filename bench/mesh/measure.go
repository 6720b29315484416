package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"shoal/bench/mesh/load"
)

// measure is a kind of job with what is read off its result.
type measure struct {
	kind  load.Kind
	conns func(o options) int
	// values of a result; cpu is what it took of it.
	values func(r load.Result, cpu time.Duration) map[string]float64
}

// Names of the values.
const (
	valueRequests   = "requests"    // per second
	valueCPU        = "cpu"         // microseconds per request
	valueConnects   = "connections" // per second
	valueThroughput = "throughput"  // Gbit per second
	valueP50        = "p50"         // microseconds
	valueP99        = "p99"
)

// bulkConns is enough that a stall of one does not idle the rest.
const bulkConns = 4

var measures = []measure{
	{kind: load.Ask, conns: func(o options) int { return o.conns }, values: func(r load.Result, cpu time.Duration) map[string]float64 {
		return map[string]float64{valueRequests: float64(r.Count) / r.Seconds, valueCPU: float64(cpu.Nanoseconds()) / 1000 / float64(r.Total)}
	}},
	{kind: load.Connect, conns: func(o options) int { return o.conns }, values: func(r load.Result, _ time.Duration) map[string]float64 {
		return map[string]float64{valueConnects: float64(r.Count) / r.Seconds}
	}},
	{kind: load.Bulk, conns: func(options) int { return bulkConns }, values: func(r load.Result, _ time.Duration) map[string]float64 {
		return map[string]float64{valueThroughput: float64(r.Bytes) * 8 / 1e9 / r.Seconds}
	}},
	// One question at a time: what a request takes when nobody else asks.
	{kind: load.Ask, conns: func(options) int { return 1 }, values: func(r load.Result, _ time.Duration) map[string]float64 {
		return map[string]float64{valueP50: r.P50, valueP99: r.P99}
	}},
}

// key names a value of a contender of a scenario.
type key struct{ scenario, contender, value string }

// way names a contender of a scenario.
type way struct{ scenario, contender string }

// round is what was measured in one round, and the connections that failed.
type round struct {
	values map[key]float64
	failed map[way]int
	words  string // of the first failure
}

// measureAll measures everything in every round: one scenario after the other,
// of each what is measured, of that the contenders one right after the other, in
// another order each time.
func measureAll(ctx context.Context, o options, scenarios []scenario) ([]round, error) {
	var rounds []round
	for i := range o.rounds {
		began := time.Now()
		r := round{values: map[key]float64{}, failed: map[way]int{}}
		for _, s := range scenarios {
			for _, m := range measures {
				for _, n := range rand.Perm(len(s.contenders)) {
					if err := r.one(ctx, o, s, s.contenders[n], m); err != nil {
						return nil, err
					}
				}
			}
		}
		rounds = append(rounds, r)
		fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", i+1, o.rounds, time.Since(began).Round(100*time.Millisecond))
	}
	return rounds, nil
}

// attempts is how often a contender is measured that gives no answer at all.
const attempts = 3

// one measures one contender. Where nothing answers the round has no value.
func (r *round) one(ctx context.Context, o options, s scenario, c contender, m measure) error {
	for range attempts {
		before, err := cpuTime(c.busy)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", s.Name, c.Name, err)
		}
		got, err := c.client.do(ctx, load.Job{Kind: m.kind, Target: c.target, Conns: m.conns(o), Warm: o.slice / 5, Length: o.slice})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		after, broken := cpuTime(c.busy)
		if broken != nil {
			return fmt.Errorf("%s, %s: %w", s.Name, c.Name, errors.Join(broken, err))
		}
		if err == nil && got.Count+got.Bytes == 0 {
			err = errors.New("no answer in time")
		}
		r.note(s, c, got, err)
		if err == nil {
			for name, value := range m.values(got, after-before) {
				r.values[key{s.Name, c.Name, name}] = value
			}
			return nil
		}
	}
	return nil
}

// note keeps what failed.
func (r *round) note(s scenario, c contender, got load.Result, err error) {
	failed, words := got.Failed, got.Failure
	if err != nil {
		failed, words = failed+1, err.Error()
	}
	if failed == 0 {
		return
	}
	r.failed[way{s.Name, c.Name}] += failed
	text := fmt.Sprintf("%s, %s: %s", s.Name, c.Name, words)
	fmt.Fprintln(os.Stderr, text)
	if r.words == "" {
		r.words = text
	}
}
