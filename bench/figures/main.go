// Command figures measures a lab that is up: how long writes pause when the
// leader is killed, how long a new service takes to answer on every host, and
// what the daemons cost. Every run is bounded and leaves the lab as it was.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"

	"shoal/bench/lab"
)

const usage = `usage: figures [-dir DIR] COMMAND

  leader [-kills N]    kill -9 the leader N times under a write every 10 ms
  create [-rounds N]   create a service of 3 replicas until all answer on every host
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir := flag.String("dir", lab.DefaultDir, "the lab's directory")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	if err := run(ctx, *dir, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, args []string) error {
	if len(args) == 0 {
		flag.Usage()
		return fmt.Errorf("no command")
	}
	l, err := lab.Open(dir)
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	switch args[0] {
	case "leader":
		kills := flags.Int("kills", 20, "how often the leader is killed")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return leader(ctx, l, *kills)
	case "create":
		rounds := flags.Int("rounds", 10, "how often a service is created")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return create(ctx, l, *rounds)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// quantile is the value that the fraction q of the sorted values does not exceed.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func distribution(values []time.Duration) string {
	v := slices.Sorted(slices.Values(values))
	ms := func(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
	return fmt.Sprintf("min %s, median %s, p90 %s, p99 %s, max %s (n=%d)",
		ms(quantile(v, 0)), ms(quantile(v, 0.5)), ms(quantile(v, 0.9)), ms(quantile(v, 0.99)), ms(quantile(v, 1)), len(v))
}
