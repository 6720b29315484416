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
  recreate [-rounds N] remove a service and its network and make both again at once
  rolling [-updates N] [-rate N]
                       update a service of 8 replicas N times under load; no request may be lost
  chaos [-kills N -cuts N -seed N]
                       kill N tasks and cut N hosts' power at random under load, and explain every failed request
  stopped [-for DURATION] [-host HOST] [-alone]
                       stop and then kill the daemon of a host for a while under requests and lookups; none may be lost
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
	case "recreate":
		rounds := flags.Int("rounds", 50, "how often service and network are removed and made again")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return recreate(ctx, l, *rounds)
	case "rolling":
		updates := flags.Int("updates", 30, "how often the service is updated")
		rate := flags.Int("rate", 500, "requests a second, 1 or more")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return rolling(ctx, l, *updates, max(*rate, 1))
	case "chaos":
		kills := flags.Int("kills", 200, "how many tasks are killed")
		cuts := flags.Int("cuts", 20, "how many hosts lose their power")
		seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "which of them")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return chaos(ctx, l, *kills, *cuts, *seed)
	case "stopped":
		away := flags.Duration("for", time.Minute, "how long the daemon is away each time")
		host := flags.String("host", "h2", "whose daemon")
		alone := flags.Bool("alone", false, "all tasks of the service are on that host")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		victim, err := l.Host(*host)
		if err != nil {
			return err
		}
		return stopped(ctx, l, victim, *away, *alone)
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
