package leader

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
)

var bigSubnet = swarm.IPAMConfig{Subnet: netip.MustParsePrefix("10.8.0.0/16")}

// grown is a cluster of 100 nodes with services of 5 running tasks.
func grown(b *testing.B, services int) *model {
	m := newModel(b, 100)
	m.network("app")
	for i := range services {
		spec := replicatedSpec(fmt.Sprint("s", i), 5)
		if i%20 == 0 {
			spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "app-id"}}
		}
		m.create(spec)
	}
	m.settle(time.Minute)
	return m
}

// BenchmarkOneStatusChange is what one failed task costs the planners: it should
// not depend on how much else there is.
func BenchmarkOneStatusChange(b *testing.B) {
	for _, services := range []int{50, 500} {
		b.Run(fmt.Sprint(services*5, " tasks"), func(b *testing.B) {
			m := grown(b, services)
			tasks := m.view().TasksByService("s1-id")
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer()
				m.clock.at = m.clock.at.Add(time.Millisecond)
				m.report(tasks[i%5], swarm.TaskStateRunning)
				b.StartTimer()
				if err := m.s.catchUp(context.Background()); err != nil {
					b.Fatal(err)
				}
				if ops := m.s.round(); len(ops) != 0 {
					b.Fatal(describe(ops))
				}
			}
		})
	}
}

// BenchmarkRoundOf1000Tasks is one round that creates, addresses and places a
// thousand tasks on a hundred nodes.
func BenchmarkRoundOf1000Tasks(b *testing.B) {
	m := newModel(b, 100)
	m.network("big", bigSubnet)
	m.plan()
	spec := replicatedSpec("web", 1000)
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "big-id"}}
	m.create(spec)
	for b.Loop() {
		m.elect()
		if got := len(m.s.round()); got != 1001 {
			b.Fatal(got)
		}
	}
}
