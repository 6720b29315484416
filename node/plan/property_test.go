package plan

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/api"
	"shoal/dns/zone"
	"shoal/overlay/endpoint"
)

// drawn is a cluster of a few nodes, networks and services. Addresses may be
// claimed twice, as they are for a moment in life.
func drawn(t *rapid.T) Input {
	in := Input{Self: me, Networks: []*api.Network{ingressNetwork()}, Silent: map[string]bool{}}
	for i := range 2 {
		in.Networks = append(in.Networks, aNetwork(fmt.Sprintf("net%d", i), uint32(4097+i), fmt.Sprintf("10.0.%d.0/24", i+1)))
	}
	for i := 1; i <= 4; i++ {
		id := fmt.Sprintf("n%d", i)
		in.Silent[id] = rapid.Bool().Draw(t, "silent")
		state := rapid.SampledFrom([]swarm.NodeState{swarm.NodeStateReady, swarm.NodeStateDown}).Draw(t, "node")
		in.Nodes = append(in.Nodes, nodeIn(id, state))
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "services") {
		s := aService(fmt.Sprintf("s%d", i), "", "net0", "net1")
		if rapid.Bool().Draw(t, "vip") {
			for n := range 2 {
				s.Endpoint.VirtualIPs = append(s.Endpoint.VirtualIPs, swarm.EndpointVirtualIP{
					NetworkID: fmt.Sprintf("net%d", n), Addr: netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/24", n+1, 200+i)),
				})
			}
		}
		if rapid.Bool().Draw(t, "published") {
			publish(s, 80, uint32(8000+i), swarm.PortConfigPublishModeIngress)
		}
		in.Services = append(in.Services, s)
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "records") {
		in.Records = append(in.Records, drawnRecord(t, i))
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "locals") {
		l := localTask(fmt.Sprintf("l%d", i), "net0", fmt.Sprintf("10.0.1.%d/24", 100+i), "net1", fmt.Sprintf("10.0.2.%d/24", 100+i))
		in.Local = append(in.Local, l)
	}
	return in
}

func drawnRecord(t *rapid.T, i int) endpoint.Record {
	last := rapid.IntRange(2, 9).Draw(t, "address")
	r := rec(fmt.Sprintf("n%d", rapid.IntRange(1, 4).Draw(t, "owner")), fmt.Sprintf("t%d", i),
		fmt.Sprintf("s%d", rapid.IntRange(0, 3).Draw(t, "service")), i,
		"net0", fmt.Sprintf("10.0.1.%d", last), "net1", fmt.Sprintf("10.0.2.%d", last), "ingress", fmt.Sprintf("10.0.0.%d", last))
	if rapid.Bool().Draw(t, "draining") {
		r = draining(r)
	}
	return r
}

func shuffled[T any](r *rand.Rand, in []T) []T {
	out := slices.Clone(in)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func TestOrderOfInputDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawn(t)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		other := in
		other.Networks, other.Services, other.Nodes = shuffled(r, in.Networks), shuffled(r, in.Services), shuffled(r, in.Nodes)
		other.Records, other.Local = shuffled(r, in.Records), shuffled(r, in.Local)
		if one, two := Compile(in), Compile(other); !reflect.DeepEqual(one, two) {
			t.Fatalf("two orders, two wishes:\n%+v\n%+v", one, two)
		}
	})
}

func TestEveryAnswerComesFromARecord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawn(t)
		out := Compile(in)
		down := map[string]bool{}
		for _, n := range in.Nodes {
			down[n.ID] = n.Status.State == swarm.NodeStateDown && n.ID != me.ID
		}
		known := func(addr netip.Addr, fits func(endpoint.Record) bool) bool {
			return slices.ContainsFunc(in.Records, func(r endpoint.Record) bool {
				return fits(r) && slices.ContainsFunc(r.Value.Attachments, func(a endpoint.Attachment) bool {
					return slices.Contains(a.Addrs, addr)
				})
			})
		}
		for _, d := range out.Balancers {
			if _, err := d.Canonical(); err != nil {
				t.Fatal(err)
			}
			for _, s := range d.Services {
				for _, b := range s.Backends {
					if !known(b.Addr, func(r endpoint.Record) bool { return r.Value.ServiceID == s.Name && !down[r.Owner] }) {
						t.Fatalf("%s is balanced to %s, which is no live record of it", s.Name, b.Addr)
					}
				}
			}
		}
		for _, n := range out.Overlay.Networks {
			for _, p := range n.Peers {
				if !known(p.Addrs[0], func(r endpoint.Record) bool { return r.Owner != me.ID && r.Value.VTEP == p.VTEP }) {
					t.Fatalf("peer %+v is no remote record", p)
				}
			}
		}
		for _, n := range out.Zone.Networks {
			for _, s := range n.Services {
				for _, task := range s.Tasks {
					if !known(task.Addrs[0], func(r endpoint.Record) bool { return r.Value.TaskName == task.Name && !down[r.Owner] }) {
						t.Fatalf("name %s is no live record", task.Name)
					}
				}
			}
		}
	})
}

func TestNamesAndBalancersAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawn(t)
		out := Compile(in)
		if len(in.Local) == 0 {
			return
		}
		z := zone.Build(out.Zone)
		for _, d := range out.Balancers {
			if len(d.MasqueradeFrom) > 0 { // the mesh has no names
				continue
			}
			for _, s := range d.Services {
				network := map[byte]string{1: "net0", 2: "net1"}[s.Addr.As4()[2]]
				var fresh []netip.Addr
				for _, b := range s.Backends {
					if !b.Draining {
						fresh = append(fresh, b.Addr)
					}
				}
				if named, _ := z.Addrs([]string{network}, "tasks."+s.Name); !slices.Equal(named, fresh) {
					t.Fatalf("%s on %s: named %v, balanced %v", s.Name, network, named, fresh)
				}
			}
		}
	})
}

// many is a cluster of so many services with five tasks each; so many clients
// run here.
func many(services, locals int) Input {
	in := Input{Self: me, Networks: []*api.Network{aNetwork("net", 4097, "10.0.0.0/12")}}
	address := netip.MustParseAddr("10.0.1.1")
	next := func() string { address = address.Next(); return address.String() }
	for i := range services {
		id := fmt.Sprintf("s%d", i)
		in.Services = append(in.Services, aService(id, next()+"/12", "net"))
		for slot := range 5 {
			in.Records = append(in.Records, rec(fmt.Sprintf("n%d", 2+(i+slot)%100), fmt.Sprintf("t%d-%d", i, slot), id, slot, "net", next()))
		}
	}
	for i := range locals {
		in.Local = append(in.Local, localTask(fmt.Sprintf("l%d", i), "net", next()+"/12"))
	}
	return in
}

// One wish for a node of a large cluster: 1,000 services of five tasks, and
// twenty tasks here that use them.
func BenchmarkCompile(b *testing.B) {
	for _, services := range []int{100, 1000} {
		in := many(services, 20)
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Compile(in)
			}
		})
	}
}
