package fabric

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/lb"
)

// TestSubstitutes: what the balancer cannot do is done in another way, and told
// once for each service.
func TestSubstitutes(t *testing.T) {
	for wish, want := range map[string]lb.Algorithm{"lc": lb.RoundRobin, "wlc": lb.WeightedRoundRobin, "sh": lb.SourceHash, "nonsense": lb.RoundRobin} {
		t.Run(wish, func(t *testing.T) {
			b := newBed(t)
			b.kernel.balancer.Unsupported = []lb.Algorithm{lb.LeastConn, lb.WeightedLeastConn}
			var told []string
			b.cfg.Findings = func(messages []string) { told = messages }
			b.services[0].Spec.Labels = map[string]string{api.LabelAlgorithm: wish}
			b.record("t1", "10.0.1.3")
			b.record("t2", "10.0.1.4")
			if err := b.attach(t, aTask("t1", "10.0.1.3/24"), aTask("t2", "10.0.1.4/24")); err != nil {
				t.Fatal(err)
			}
			for _, d := range b.Wish().Balancers {
				if got := d.Services[0].Algorithm; got != want {
					t.Errorf("balanced by %q, want %q", got, want)
				}
			}
			if lacks := strings.HasSuffix(wish, "lc"); lacks != (len(told) == 1) || lacks && !strings.Contains(told[0], "service web is balanced by") {
				t.Errorf("told %q", told)
			}
		})
	}
}

// TestPublishesAtPlaces: the node's addresses are looked up only where a port asks
// for them, and what is not known does not take away what is published.
func TestPublishesAtPlaces(t *testing.T) {
	b := newBed(t)
	asked, failure := 0, error(nil)
	addrs := map[string][]netip.Addr{"eth0": {netip.MustParseAddr("192.0.2.1")}}
	b.cfg.Addrs = func() (map[string][]netip.Addr, error) { asked++; return addrs, failure }
	task := aTask("t1", "10.0.1.3/24")
	task.Ports = []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeHost}}
	if err := b.attach(t, task); err != nil || asked > 0 {
		t.Fatalf("asked %d times for addresses that nobody needs, %v", asked, err)
	}
	b.SetLive("t1", true)
	task.ServiceLabels = map[string]string{api.LabelPublish: "eth0"}
	at := func() (out []string) {
		for _, f := range b.Wish().Translations[0].Forwards {
			out = append(out, f.At.String())
		}
		return out
	}
	if err := b.step(t.Context()); err != nil || !slices.Equal(at(), []string{"192.0.2.1"}) {
		t.Errorf("published at %q, %v", at(), err)
	}
	b.fullSync, failure = time.Time{}, errors.New("interrupted")
	if err := b.step(t.Context()); !errors.Is(err, failure) || !slices.Equal(at(), []string{"192.0.2.1"}) {
		t.Errorf("while nothing is known: published at %q, %v", at(), err)
	}
	b.fullSync, failure, addrs = time.Time{}, nil, map[string][]netip.Addr{"eth0": {netip.MustParseAddr("192.0.2.7")}}
	if err := b.step(t.Context()); err != nil || !slices.Equal(at(), []string{"192.0.2.7"}) {
		t.Errorf("with another address: published at %q, %v", at(), err)
	}
}
