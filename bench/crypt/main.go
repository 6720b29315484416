// Command crypt measures what encryption costs on this kernel, and how near the
// product comes to the bare tunnel. Each arm is a pair of hosts of its own,
// network namespaces joined by a veth pair:
//
//	clear      task - bridge - VXLAN - veth               an overlay network
//	wireguard  host - WireGuard - veth                    the bare tunnel
//	esp        host - ESP, transport mode - veth          the bare tunnel
//	shoal      task - bridge - VXLAN - WireGuard - veth   an encrypted network
//	vxlan-esp  task - bridge - VXLAN - ESP - veth         the other way to make one
//
// Arms take turns in short rounds, forward and backward; what is printed are
// medians, and medians of the ratios within a round.
//
//	bench/vm/run --count -- bin/crypt -rounds 3 -length 200ms
//	bin/crypt -ciphers
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 7, "how often each arm is measured")
	length := flag.Duration("length", 1500*time.Millisecond, "of one measurement")
	alone := flag.Bool("ciphers", false, "measure the ciphers alone, which needs no kernel and no root")
	flag.Parse()
	if *alone {
		if err := ciphers(*length); err != nil {
			fmt.Fprintln(os.Stderr, "crypt:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(context.Background(), *rounds, *length); err != nil {
		fmt.Fprintln(os.Stderr, "crypt:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, length time.Duration) (err error) {
	s := &scene{}
	defer func() {
		if closeErr := s.close(); err == nil {
			err = closeErr
		}
	}()
	var arms []*arm
	for _, make := range []func(context.Context) (*arm, error){s.clear, s.wireguard, s.esp, s.shoal, s.vxlanESP} {
		a, err := make(ctx)
		if err != nil {
			return err
		}
		if err := a.serve(ctx); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		arms = append(arms, a)
	}
	for _, m := range []measure{{"throughput", "Mbit/s", bulk}, {"requests", "1/s", requests}} {
		got, err := m.all(ctx, arms, rounds, length)
		if err != nil {
			return err
		}
		m.print(arms, got)
	}
	return nil
}

// measure is one thing that is measured: it returns an amount for each second.
type measure struct {
	name, unit string
	take       func(context.Context, *arm, time.Duration) (rate, cpu float64, err error)
}

// sample is one measurement: the rate, and the CPU time spent for each unit.
type sample struct{ rate, cpu float64 }

// all measures every arm in every round, odd rounds backward.
func (m measure) all(ctx context.Context, arms []*arm, rounds int, length time.Duration) ([][]sample, error) {
	got := make([][]sample, len(arms))
	for round := range rounds {
		order := make([]int, len(arms))
		for i := range order {
			order[i] = i
		}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, i := range order {
			rate, cpu, err := m.take(ctx, arms[i], length)
			if err != nil {
				return nil, fmt.Errorf("%s of %s: %w", m.name, arms[i].name, err)
			}
			got[i] = append(got[i], sample{rate, cpu})
		}
	}
	return got, nil
}

// print writes a table: medians, and medians of the ratios to the two bare tunnels.
func (m measure) print(arms []*arm, got [][]sample) {
	fmt.Printf("\n%-10s %12s %14s %12s %12s\n", m.name, m.unit, "CPU µs/unit", "/ wireguard", "/ esp")
	ratio := func(i, to int) float64 {
		var out []float64
		for round := range got[i] {
			out = append(out, got[i][round].rate/got[to][round].rate)
		}
		return median(out)
	}
	for i, a := range arms {
		var rates, cpus []float64
		for _, s := range got[i] {
			rates, cpus = append(rates, s.rate), append(cpus, s.cpu)
		}
		fmt.Printf("%-10s %12.1f %14.1f %12.3f %12.3f\n", a.name, median(rates), median(cpus), ratio(i, 1), ratio(i, 2))
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return (of[(len(of)-1)/2] + of[len(of)/2]) / 2
}
