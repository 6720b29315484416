package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/load"
)

const (
	chaosReplicas = 12
	chaosRate     = 500
	// watched is how long after a kill requests are looked at.
	watched = 1500 * time.Millisecond
	// late is when a failed new connection has no excuse any more: a dead task is
	// known on every node long before, a dead host after its heartbeats.
	late, lateHost = time.Second, 5 * time.Second
)

// chaos kills tasks and cuts hosts' power, at random, while the service is asked.
func chaos(ctx context.Context, l *lab.Lab, kills, cuts int, seed uint64) error {
	s, err := open(ctx, l, chaosReplicas, nil)
	if s != nil {
		defer s.close(ctx)
	}
	if err != nil {
		return err
	}
	fmt.Printf("seed %d, %d requests/s through %d hosts and from a task on each\n", seed, chaosRate, len(l.Hosts()))
	end := s.ask(ctx, chaosRate, s.routes("", load.Asker))
	defer end()
	random := rand.New(rand.NewPCG(seed, seed))
	tasks, hosts := &toll{name: "task", late: late}, &toll{name: "host", late: lateHost}
	for i := range kills {
		if err := s.killTask(ctx, random, tasks, i+1); err != nil {
			return err
		}
	}
	for i := range cuts {
		if err := s.cutHost(ctx, random, hosts, i+1); err != nil {
			return err
		}
	}
	end()
	taken := s.prober.Taken()
	unexplained := slices.Concat(tasks.settle(taken), hosts.settle(taken))
	other := outsideAll(taken, slices.Concat(tasks.deaths, hosts.deaths))
	unexplained = append(unexplained, other...)
	fmt.Printf("all: %d requests; failed at no death's time: %d; unexplained: %d\n", len(taken), len(other), len(unexplained))
	if len(unexplained) > 0 {
		fmt.Print(load.Details(unexplained, taken[0].Began))
		return fmt.Errorf("%d failed requests are unexplained", len(unexplained))
	}
	return nil
}

func (s *scene) killTask(ctx context.Context, random *rand.Rand, t *toll, number int) error {
	list, err := s.running(ctx, sceneWeb, chaosReplicas)
	if err != nil {
		return err
	}
	victim := list[random.IntN(len(list))]
	d := death{at: time.Now()}
	if err := syscall.Kill(pid(victim), syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill task %s: %w", victim.ID, err)
	}
	if err := s.replaced(ctx, func(other swarm.Task) bool { return other.ID != victim.ID }); err != nil {
		return err
	}
	if number%10 == 0 {
		fmt.Printf("kill %3d: %s.%d is replaced after %s\n", number, sceneWeb, victim.Slot, load.Round(time.Since(d.at)))
	}
	sleep(ctx, time.Until(d.at.Add(watched)))
	d.until = time.Now()
	t.deaths = append(t.deaths, d)
	return nil
}

// replaced waits until all tasks run and are as accept wants them.
func (s *scene) replaced(ctx context.Context, accept func(swarm.Task) bool) error {
	return await(ctx, "the replacement", func() error {
		list, err := s.running(ctx, sceneWeb, chaosReplicas)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list, func(t swarm.Task) bool { return !accept(t) }) {
			return fmt.Errorf("the dead count still")
		}
		return nil
	})
}

func (s *scene) cutHost(ctx context.Context, random *rand.Rand, t *toll, number int) error {
	victim := s.l.Hosts()[random.IntN(len(s.l.Hosts()))]
	names, err := s.hostnames(ctx)
	if err != nil {
		return err
	}
	list, err := s.running(ctx, sceneWeb, chaosReplicas)
	if err != nil {
		return err
	}
	elsewhere := func(t swarm.Task) bool { return names[t.NodeID] != victim.Name }
	d := death{at: time.Now(), off: []string{outside(victim.Name), inside(victim.Name)}, all: !slices.ContainsFunc(list, elsewhere)}
	if err := s.l.PowerCut(ctx, victim); err != nil {
		return err
	}
	for _, route := range d.off {
		if err := s.prober.Use(ctx, route, false); err != nil {
			return err
		}
	}
	if err := s.replaced(ctx, elsewhere); err != nil {
		return err
	}
	took := time.Since(d.at)
	sleep(ctx, watched)
	d.until = time.Now()
	t.deaths = append(t.deaths, d)
	if err := s.l.Heal(ctx); err != nil {
		return err
	}
	if err := s.learnClients(ctx, len(s.l.Hosts())); err != nil {
		return err
	}
	fmt.Printf("cut %2d: the tasks of %s run elsewhere after %s\n", number, victim.Name, load.Round(took))
	for _, route := range d.off {
		if err := s.prober.Use(ctx, route, true); err != nil {
			return err
		}
	}
	sleep(ctx, watched)
	return nil
}

// death is one kill: when it was, until when its requests were looked at, which
// routes began at what died, and whether all tasks of the service died.
type death struct {
	at, until time.Time
	off       []string
	all       bool
}

// toll is what the deaths of one kind cost.
type toll struct {
	name   string
	late   time.Duration
	deaths []death
}

// settle explains every failed request of the deaths, prints the bill and returns
// those that it cannot explain.
func (t *toll) settle(taken []load.Sample) (unexplained []load.Sample) {
	if len(t.deaths) == 0 {
		return nil
	}
	reasons := map[string]int{}
	last := map[string][]time.Duration{}
	requests, failed := 0, 0
	for _, d := range t.deaths {
		latest := map[string]time.Duration{}
		for _, s := range taken {
			if !d.covers(s) || t.another(d, s) {
				continue
			}
			requests++
			if _, seen := latest[s.Route]; !seen && !d.all && !slices.Contains(d.off, s.Route) {
				latest[s.Route] = 0
			}
			if s.Failed == "" {
				continue
			}
			failed++
			why, excused := d.explain(s, t.late)
			reasons[why+": "+s.Failed]++
			if !excused {
				unexplained = append(unexplained, s)
			}
			if began := s.Began.Sub(d.at); !d.all && !slices.Contains(d.off, s.Route) {
				latest[s.Route] = max(latest[s.Route], began)
			}
		}
		for route, at := range latest {
			last[route] = append(last[route], at)
		}
	}
	fmt.Printf("%d deaths of a %s: %d of %d requests near them failed\n", len(t.deaths), t.name, failed, requests)
	for _, why := range sortedKeys(reasons) {
		fmt.Printf("  %6d × %s\n", reasons[why], why)
	}
	fmt.Println("  death → last new connection that met the dead, per way in:")
	for _, route := range sortedKeys(last) {
		fmt.Printf("  %-24s %s\n", route, distribution(last[route]))
	}
	return unexplained
}

// another says that a failed request which the death does not explain is another
// one's: the next task may be killed while it is still under way.
func (t *toll) another(d death, s load.Sample) bool {
	explains := func(d death) bool { _, excused := d.explain(s, t.late); return d.covers(s) && excused }
	return s.Failed != "" && !explains(d) && slices.ContainsFunc(t.deaths, explains)
}

// covers: the request belongs to the death's time.
func (d death) covers(s load.Sample) bool {
	return s.Ended.After(d.at) && s.Began.Before(d.until)
}

// explain says why a request failed that belongs to the death's time.
func (d death) explain(s load.Sample, late time.Duration) (why string, excused bool) {
	switch began := s.Began.Sub(d.at); {
	case slices.Contains(d.off, s.Route):
		return "asked the host that is off, or from a task on it", true
	case began <= 0:
		return "in flight when it died", true
	case d.all:
		return "every task of the service was on the host that died", true
	case began <= late:
		return "begun before this node had taken the dead out", true
	default:
		return "UNEXPLAINED, begun long after", false
	}
}

// outsideAll are the requests that failed at no death's time.
func outsideAll(taken []load.Sample, deaths []death) (out []load.Sample) {
	for _, s := range taken {
		if s.Failed != "" && !slices.ContainsFunc(deaths, func(d death) bool { return d.covers(s) }) {
			out = append(out, s)
		}
	}
	return out
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
