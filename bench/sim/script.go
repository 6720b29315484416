package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// counterLabel is what the steady writer counts in.
const counterLabel = "sim.counter"

// ledgerService runs nothing; the steady writer counts on it.
const ledgerService = "ledger"

// Script does to a cluster what a seed draws.
type Script struct {
	c   *Cluster
	op  *Operator
	rng *rand.Rand
	// Rest bounds how long the cluster has to come to rest after each round.
	Rest time.Duration
	// Log is told of every step.
	Log    func(format string, args ...any)
	serial int
}

// NewScript returns a script for a cluster.
func NewScript(c *Cluster, seed uint64, log func(string, ...any)) *Script {
	op := NewOperator(c, rand.New(rand.NewPCG(seed, 2)))
	return &Script{c: c, op: op, rng: rand.New(rand.NewPCG(seed, 3)), Rest: time.Minute, Log: log}
}

// spec draws a service.
func (s *Script) spec(name string, replicas uint64) swarm.ServiceSpec {
	var spec swarm.ServiceSpec
	spec.Name = name
	spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "shoal/whoami:latest"}
	delay, monitor := 100*time.Millisecond, 100*time.Millisecond
	spec.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny, Delay: &delay}
	spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: uint64(1 + s.rng.IntN(3)), Monitor: monitor, Order: swarm.UpdateOrderStopFirst}
	if s.rng.IntN(2) == 0 {
		spec.UpdateConfig.Order = swarm.UpdateOrderStartFirst
	}
	spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	return spec
}

// Prepare makes networks and the first services: one of each kind.
func (s *Script) Prepare(ctx context.Context) error {
	for _, name := range []string{"app", "back"} {
		if err := s.op.CreateNetwork(ctx, name); err != nil {
			return err
		}
	}
	web := s.spec("web", 6)
	web.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "app"}}
	web.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080}}}
	rr := s.spec("rr", 4)
	rr.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "app"}, {Target: "back"}}
	rr.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
	everywhere := s.spec("everywhere", 0)
	everywhere.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
	everywhere.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "back", Aliases: []string{"all"}}}
	for _, spec := range []swarm.ServiceSpec{web, rr, everywhere, s.spec(ledgerService, 0)} {
		if err := s.op.CreateService(ctx, spec); err != nil {
			return err
		}
	}
	return s.AtRest(ctx)
}

// AtRest waits until all checkers of a cluster at rest are content.
func (s *Script) AtRest(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, s.Rest, fmt.Errorf("%s are over", s.Rest))
	defer cancel()
	err := Await(ctx, s.op.Converged, s.op.Kept, s.c.Agree, s.c.Tables, s.c.Keys, s.c.Kernels, s.op.Reach, s.c.Owned, s.op.Kept)
	s.Log("at rest after %s", time.Since(began).Round(time.Millisecond))
	return err
}

// Owned complains about what two objects of the leader's state claim.
func (c *Cluster) Owned() (out complaints) {
	if leader := c.Leader(); leader != nil {
		return OneOwner(managerView(leader))
	}
	return out
}

// Round draws a fault, writes while it lasts, and waits for the cluster to rest.
func (s *Script) Round(ctx context.Context, f Fault) error {
	s.Log("fault: %s", f.Name)
	stop := s.count(ctx)
	undo, err := f.Do(ctx, s)
	for range 1 + s.rng.IntN(2) {
		err = errors.Join(err, s.write(ctx))
	}
	if undo != nil {
		err = errors.Join(err, undo(ctx))
	}
	if err = errors.Join(err, stop()); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	if err := s.AtRest(ctx); err != nil {
		return fmt.Errorf("after %s: %w", f.Name, err)
	}
	return nil
}

// count writes a higher number every few milliseconds until stopped.
func (s *Script) count(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var err error
	wg.Go(func() {
		for n := 1; ctx.Err() == nil && err == nil; n++ {
			err = s.op.UpdateService(context.WithoutCancel(ctx), ledgerService, func(spec *swarm.ServiceSpec) {
				last, _ := strconv.Atoi(spec.Labels[counterLabel])
				spec.Labels = map[string]string{counterLabel: strconv.Itoa(last + 1)}
			})
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return func() error {
		cancel()
		wg.Wait()
		return err
	}
}

// write draws one change of what should run.
func (s *Script) write(ctx context.Context) error {
	services, _, _ := s.op.Wishes()
	names := []string{}
	extra := 0
	for name, w := range services {
		if w.spec.Mode.Replicated != nil && name != ledgerService {
			names = append(names, name)
			extra++
		}
	}
	slices.Sort(names)
	name := names[s.rng.IntN(len(names))]
	switch draw := s.rng.IntN(10); {
	case draw < 2 && extra < 6:
		_, err := s.create(ctx)
		return err
	case draw < 4 && extra > 3 && name != "web" && name != "rr":
		s.Log("remove %s", name)
		return s.op.RemoveService(ctx, name)
	case draw < 7:
		replicas := uint64(1 + s.rng.IntN(8))
		s.Log("scale %s to %d", name, replicas)
		return s.op.UpdateService(ctx, name, func(spec *swarm.ServiceSpec) { spec.Mode.Replicated.Replicas = &replicas })
	default:
		image := []string{"shoal/whoami:latest", "shoal/whoami:v2"}[s.rng.IntN(2)]
		s.Log("update %s to %s", name, image)
		return s.op.UpdateService(ctx, name, func(spec *swarm.ServiceSpec) { spec.TaskTemplate.ContainerSpec.Image = image })
	}
}

// create draws a new service, half the time with a network of its own.
func (s *Script) create(ctx context.Context) (name string, err error) {
	s.serial++
	name = fmt.Sprintf("extra%d", s.serial)
	spec := s.spec(name, uint64(1+s.rng.IntN(4)))
	target := []string{"app", "back"}[s.rng.IntN(2)]
	if s.rng.IntN(2) == 0 {
		target = "net" + name
		s.Log("create network %s", target)
		if err := s.op.CreateNetwork(ctx, target); err != nil {
			return name, err
		}
	}
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: target}}
	spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80}}}
	if s.rng.IntN(2) == 0 {
		spec.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
	}
	s.Log("create %s on %s", name, target)
	return name, s.op.CreateService(ctx, spec)
}

// until waits for a condition that the checkers of a cluster at rest do not know.
func (s *Script) until(ctx context.Context, what string, holds func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.Rest, fmt.Errorf("%s are over", s.Rest))
	defer cancel()
	return Await(ctx, func() (out complaints) {
		if !holds() {
			out.add("%s", what)
		}
		return out
	})
}

// knownDown waits until the leader counts the hosts as down.
func (s *Script) knownDown(ctx context.Context, hosts ...*Host) error {
	return s.until(ctx, "the leader counts hosts as alive that are not", func() bool {
		l := s.c.Leader()
		return l != nil && !slices.ContainsFunc(hosts, func(h *Host) bool {
			n := managerView(l).Node(h.id)
			return n == nil || n.Status.State != swarm.NodeStateDown
		})
	})
}

// led waits until some manager leads.
func (s *Script) led(ctx context.Context) error {
	return s.until(ctx, "no manager leads", func() bool { return s.c.Leader() != nil })
}

// some draws a host.
func (s *Script) some(hosts []*Host) *Host { return hosts[s.rng.IntN(len(hosts))] }

func (s *Script) workers() []*Host { return s.c.hosts[s.c.cfg.Managers:] }

// wantedOn lists the tasks that a host runs for the managers.
func wantedOn(c *Cluster, h *Host) (out []*api.Task) {
	if l := c.Leader(); l != nil {
		for _, t := range managerView(l).TasksByNode(h.id) {
			if t.Wanted() && t.Status.State == swarm.TaskStateRunning {
				out = append(out, t)
			}
		}
	}
	return out
}
