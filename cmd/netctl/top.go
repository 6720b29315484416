package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"shoal/node/netview"
)

// topOptions are the flags of top.
type topOptions struct {
	options
	backends, cluster bool
	interval          time.Duration
	count             int
}

// usage is what two looks tell of one service.
type usage struct {
	netview.Usage
	// PerSecond is what happened between the looks, a second.
	PerSecond rates
}

type rates struct{ Connections, BytesIn, BytesOut, PacketsIn, PacketsOut float64 }

// sample is one screen of top.
type sample struct {
	netview.Top
	Usage []usage
	// Seconds lie between the looks.
	Seconds float64
}

func top(docker command.Cli) *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top [OPTIONS]",
		Short: "Connections and bytes of each service, live",
		Long: `Connections and bytes of each service, live.

Counted are the clients on the node, and those who enter the cluster by it.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.interval < time.Second {
				return fmt.Errorf("--interval %s: at least 1s", o.interval)
			}
			return watch(cmd.Context(), docker, o, cmd.Flags().Changed("count"))
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&o.backends, "backends", false, "one line for each backend")
	cmd.Flags().BoolVar(&o.cluster, "cluster", false, "all nodes together")
	cmd.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "between two looks")
	cmd.Flags().IntVar(&o.count, "count", 0, "end after so many screens (default: none on a terminal, else 1)")
	return cmd
}

// watch looks again and again. What is not a terminal gets one screen.
func watch(ctx context.Context, docker command.Cli, o topOptions, counted bool) error {
	live := docker.Out().IsTerminal() && o.format == "table"
	if !counted && !live {
		o.count = 1
	}
	before, err := look(ctx, docker, o)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		select {
		case <-time.After(o.interval):
		case <-ctx.Done():
			return nil
		}
		now, err := look(ctx, docker, o)
		if err != nil {
			return err
		}
		if live {
			fmt.Fprint(docker.Out(), "\x1b[H\x1b[2J")
		}
		if err := write(docker.Out(), o.format, between(before, now), printTop(o.backends)); err != nil {
			return err
		}
		if n == o.count {
			return nil
		}
		before = now
	}
}

func look(ctx context.Context, docker command.Cli, o topOptions) (out netview.Top, err error) {
	q := url.Values{}
	if o.node != "" {
		q.Set("node", o.node)
	}
	if o.backends {
		q.Set("by", "backend")
	}
	if o.cluster {
		q.Set("cluster", "1")
	}
	err = get(ctx, docker, "top", q, &out)
	return out, err
}

// between compares two looks.
func between(before, now netview.Top) sample {
	s := sample{Top: now, Seconds: now.At.Sub(before.At).Seconds(), Usage: []usage{}}
	type key struct{ service, via, task, backend string }
	old := map[key]netview.Traffic{}
	for _, u := range before.Usage {
		old[key{u.Service, u.Via, u.Task, u.Backend}] = u.Total
	}
	for _, u := range now.Usage {
		was := old[key{u.Service, u.Via, u.Task, u.Backend}]
		rate := func(now, was uint64) float64 {
			if now < was || s.Seconds <= 0 {
				return 0 // the daemon began anew
			}
			return float64(now-was) / s.Seconds
		}
		s.Usage = append(s.Usage, usage{u, rates{
			rate(u.Total.Connections, was.Connections), rate(u.Total.BytesIn, was.BytesIn), rate(u.Total.BytesOut, was.BytesOut),
			rate(u.Total.PacketsIn, was.PacketsIn), rate(u.Total.PacketsOut, was.PacketsOut),
		}})
	}
	return s
}

func printTop(backends bool) func(io.Writer, sample) {
	return func(w io.Writer, s sample) {
		of := "node " + s.Node
		if s.Node == "" {
			of = "all nodes"
		}
		fmt.Fprintf(w, "%s at %s, over %.1f s\n", of, s.At.Format("15:04:05"), s.Seconds)
		head := []any{"SERVICE", "VIA"}
		if backends {
			head = append(head, "TASK", "BACKEND")
		}
		row(w, append(head, "OPEN", "NEW/S", "IN/S", "OUT/S", "TOTAL NEW", "TOTAL IN", "TOTAL OUT")...)
		for _, u := range s.Usage {
			cells := []any{u.Service, u.Via}
			if backends {
				cells = append(cells, u.Task, u.Backend)
			}
			row(w, append(cells, u.Open, fmt.Sprintf("%.1f", u.PerSecond.Connections), bytes(u.PerSecond.BytesIn), bytes(u.PerSecond.BytesOut),
				u.Total.Connections, bytes(float64(u.Total.BytesIn)), bytes(float64(u.Total.BytesOut)))...)
		}
		if s.Cut {
			fmt.Fprintln(w, "note: there are more flows than are counted")
		}
		for _, note := range s.Notes {
			fmt.Fprintln(w, "note:", note)
		}
	}
}

// bytes writes a number of bytes for people: 1.5 kB.
func bytes(n float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if n < 999.5 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f TB", n)
}
