//go:build lab

package rtnl

import (
	"strings"
	"testing"
	"time"

	"shoal/overlay/netns"
	"shoal/overlay/vxlan"
)

func TestRestartFindsNothingToDo(t *testing.T) {
	a, _ := pair(t)
	a.fresh()
	if ops := a.plan(); len(ops) != 0 {
		t.Errorf("a new process would do:\n%s", text(ops))
	}
}

func TestTrampledStateHeals(t *testing.T) {
	a, _ := pair(t)
	net, task, port := a.desired.Networks[0].Namespace, a.sandbox(1), vxlan.TaskPort("task1", vxlan.Interface{Name: "eth0", NetworkID: "network"})
	gateway := vxlan.TaskPort("task1", vxlan.Interface{Name: "eth1"})
	peer := taskAddrs(2, 1)[0]
	cases := []struct {
		name, ns string
		commands []string
	}{
		{"forwarding entry gone", net, []string{"bridge fdb del " + mac(2, 1) + " dev vx4099 dst 10.77.9.2 self"}},
		{"forwarding entry elsewhere", net, []string{"bridge fdb replace " + mac(2, 1) + " dev vx4099 dst 10.77.9.77 self permanent"}},
		{"default forwarding entries", net, []string{"bridge fdb append 00:00:00:00:00:00 dev vx4099 dst 10.77.9.2 self", "bridge fdb append 00:00:00:00:00:00 dev vx4099 dst 10.77.9.3 self"}},
		{"bridge entry gone", net, []string{"bridge fdb del " + mac(2, 1) + " dev vx4099 master"}},
		{"neighbour gone", net, []string{"ip neigh del " + peer.String() + " dev vx4099"}},
		{"neighbour added", net, []string{"ip neigh add 10.20.7.7 lladdr 02:00:00:00:00:07 dev vx4099 nud permanent"}},
		{"bridge gone", net, []string{"ip link del br0"}},
		{"bridge down", net, []string{"ip link set br0 down"}},
		{"tunnel gone", net, []string{"ip link del vx4099"}},
		{"tunnel down", net, []string{"ip link set vx4099 down"}},
		{"tunnel floods", net, []string{"bridge link set dev vx4099 flood on learning on"}},
		{"tunnel out of the bridge", net, []string{"ip link set vx4099 nomaster"}},
		{"tunnel of another kind", net, []string{"ip link del vx4099", "ip link add name vx4099 type bridge"}},
		{"tunnel back in the host", net, []string{"ip link set vx4099 netns " + a.host}},
		{"stray links", net, []string{"ip link add name stray0 type bridge", "ip link add stray1 type veth peer name stray2"}},
		{"wrong MTU", net, []string{"ip link set vx4099 mtu 1300", "ip link set " + port + " mtu 1300"}},
		{"outer end gone", net, []string{"ip link del " + port}},
		{"outer end unplugged", net, []string{"ip link set " + port + " nomaster"}},
		{"inner end gone", task, []string{"ip link del eth0"}},
		{"inner end renamed", task, []string{"ip link set eth0 down", "ip link set eth0 name other0"}},
		{"inner end down", task, []string{"ip link set eth0 down"}},
		{"address gone", task, []string{"ip addr del 10.20.1.1/16 dev eth0"}},
		{"address replaced", task, []string{"ip addr flush dev eth0", "ip addr add 10.20.3.3/16 dev eth0"}},
		{"address added", task, []string{"ip addr add 10.20.3.3/16 dev eth0"}},
		{"hardware address changed", task, []string{"ip link set eth0 address 02:00:00:00:00:99"}},
		{"default route gone", task, []string{"ip route del default"}},
		{"default route elsewhere", task, []string{"ip route replace default via 172.18.0.9 proto 83"}},
		{"loopback down", task, []string{"ip link set lo down"}},
		{"gateway bridge gone", a.host, []string{"ip link del shoal_gw"}},
		{"gateway address changed", a.host, []string{"ip addr add 172.18.0.7/16 dev shoal_gw", "ip addr del 172.18.0.1/16 dev shoal_gw"}},
		{"gateway port not isolated", a.host, []string{"bridge link set dev " + gateway + " isolated off"}},
		{"left-over veth", a.host, []string{"ip link add sg0123456789ab type veth peer name other0"}},
		{"forwarding off", a.host, []string{"sysctl -qw net.ipv4.ip_forward=0"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a.t = t
			for _, command := range c.commands {
				run(t, in(c.ns, command))
			}
			if ops := a.converge(); len(ops) == 0 {
				t.Error("the plan did not notice")
			}
			reaches(t, task, "udp", peer, 64)
			reaches(t, task, "tcp", a.vtep, 64) // by the default route
		})
	}
}

func TestDeletedNamespacesHeal(t *testing.T) {
	a, b := pair(t)
	if err := netns.Delete(a.desired.Networks[0].Namespace); err != nil {
		t.Fatal(err)
	}
	a.converge()
	reaches(t, a.sandbox(1), "udp", taskAddrs(2, 1)[0], 64)

	// A task's namespace without a name, but with processes (here: the sockets
	// of the echo) in it, keeps its legs.
	if err := netns.Delete(a.sandbox(1)); err != nil {
		t.Fatal(err)
	}
	if ops := a.plan(); len(ops) != 0 {
		t.Errorf("plan for a task whose namespace lost its name:\n%s", text(ops))
	}
	reaches(t, b.sandbox(1), "udp", taskAddrs(1, 1)[0], 64)
}

func TestTeardownLeavesNothing(t *testing.T) {
	before := ""
	for round := range 2 {
		h := hosts(t, 1, 1500)[0]
		if round == 0 {
			before = strings.Join(strings.Fields(run(t, in(h.host, "ip -o link | wc -l"))), " ")
		}
		h.wish(1, 2, 2, 1450)
		h.converge()
		h.desired = vxlan.Desired{}
		h.converge()
		if after := strings.TrimSpace(run(t, in(h.host, "ip -o link | wc -l"))); after != before {
			t.Errorf("links on the host: %s before, %s after\n%s", before, after, run(t, in(h.host, "ip link")))
		}
		if left, _ := netns.List(h.dir); len(left) != 3 { // the host and two sandboxes are the test's own
			t.Errorf("namespaces left: %v", left)
		}
	}
}

func TestCostOfRead(t *testing.T) {
	h := hosts(t, 1, 1500)[0]
	h.wish(1, 2, 20, 1450)
	start := time.Now()
	h.converge()
	t.Logf("20 tasks, 20 peers made and checked in %v", time.Since(start))
	start = time.Now()
	const rounds = 20
	for range rounds {
		if ops := h.plan(); len(ops) != 0 {
			t.Fatal(text(ops))
		}
	}
	t.Logf("read and plan of 20 tasks: %v", time.Since(start)/rounds)
	h.desired = vxlan.Desired{}
	h.converge()
}
