package store

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func manyTasks(n int) []api.Op {
	ops := make([]api.Op, n)
	for i := range ops {
		t := task(fmt.Sprintf("t%06d", i), "s1", swarm.TaskStateNew)
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		t.NetworksAttachments = []swarm.NetworkAttachment{{Network: swarm.Network{ID: "n1"}, Addresses: []netip.Prefix{netip.PrefixFrom(addr, 8)}}}
		ops[i] = api.Create(t)
	}
	return ops
}

func filled(b testing.TB, tasks int) fixture {
	f := newFixture(b)
	f.do(api.Create(service("s1", "web")))
	f.do(manyTasks(tasks)...)
	return f
}

// BenchmarkCreate10k commits 10,000 new tasks at once.
func BenchmarkCreate10k(b *testing.B) {
	ops := manyTasks(10_000)
	for b.Loop() {
		f := newFixture(b)
		f.do(api.Create(service("s1", "web")))
		f.do(ops...)
	}
	b.ReportMetric(float64(len(ops)*b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// BenchmarkAssign commits batches of 200 assignments; the cost of a task must
// not depend on how many there are.
func BenchmarkAssign(b *testing.B) {
	for _, size := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			f := filled(b, size)
			tasks := f.View().Tasks()
			next := 0
			for b.Loop() {
				ops := make([]api.Op, 200)
				for i := range ops {
					t := *tasks[next%size]
					t.NodeID, t.Status.State = fmt.Sprintf("h%d", next%1000), swarm.TaskStateAssigned
					ops[i] = api.UpdateAnyway(&t)
					next++
				}
				f.do(ops...)
			}
			b.ReportMetric(float64(200*b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}
