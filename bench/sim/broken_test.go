package sim

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/node/plan"
	"shoal/node/presence"
	"shoal/overlay/endpoint"
)

// TestABrokenPlaceHoldsUpItsNetworkAlone: on one host one task's balancer takes no
// change any more. That host cannot confirm what happens on the task's network; it
// confirms what happens on others, and what is given up there is soon free.
func TestABrokenPlaceHoldsUpItsNetworkAlone(t *testing.T) {
	seed := seed(t)
	defer leaks(t, goleak.IgnoreCurrent())
	c, err := NewCluster(t.Context(), Config{
		Managers: 1, Workers: 2, Dir: t.TempDir(), Base: base(), Election: 2 * time.Second, Heartbeat: time.Second, GossipScale: 1, Seed: seed,
		Fail:   func(format string, args ...any) { t.Errorf(format, args...) },
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Errorf("shut down: %v", err)
		}
	}()
	s := NewScript(c, seed, t.Logf)
	for _, name := range []string{"front", "back"} {
		spec := s.spec(name, 0)
		spec.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: name}}
		if err := s.op.CreateNetwork(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if err := s.op.CreateService(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AtRest(t.Context()); err != nil {
		t.Fatal(err)
	}
	hosts := c.Hosts()
	sick, other := hosts[1], hosts[2]
	sick.machine.breakDown(localOf(t, sick, "front").Namespace)
	drain(t, other, "front", time.Second, sick.id)
	drain(t, other, "back", 10*time.Second)
	retired := time.Now()
	if err := s.op.RemoveService(t.Context(), "back"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // nobody confirms for 30 s
	defer cancel()
	err = Await(ctx, func() (out complaints) {
		v := managerView(hosts[0])
		if n := len(v.Retired()); n > 0 || v.ServiceByName("back") != nil || len(v.Tasks()) > len(hosts) {
			out.add("%d objects wait to be free, %d tasks", n, len(v.Tasks()))
		}
		return out
	})
	t.Logf("free after %s: %v", time.Since(retired), err)
	if err != nil {
		t.Error(err)
	}
}

func localOf(t *testing.T, h *Host, service string) plan.Local {
	t.Helper()
	n, _ := h.Daemon().rooms()
	locals := n.Fabric().Locals()
	i := slices.IndexFunc(locals, func(l plan.Local) bool { return l.Task.ServiceName == service })
	if i < 0 {
		t.Fatalf("no task of %s on %s", service, h.name)
	}
	return locals[i]
}

// drain takes a service's task on a host out of service, and wants all but the named
// hosts to confirm it in time.
func drain(t *testing.T, h *Host, service string, patience time.Duration, silent ...string) {
	t.Helper()
	n, _ := h.Daemon().rooms()
	p := presence.Publisher{Presence: n.Presence, SettleTook: func(time.Duration, int) {}}
	id := localOf(t, h, service).Task.ID
	r, _ := n.Table().View().Record(h.id, id)
	r.Value.State = endpoint.Draining
	p.Publish(id, r.Value)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	missing := p.Settle(ctx, id)
	t.Logf("a task of %s: %q are silent after %s", service, missing, time.Since(began))
	if !slices.Equal(missing, silent) {
		t.Error(fmt.Sprintf("that a task of %s drains is confirmed by all but %q, want %q", service, missing, silent))
	}
}
