//go:build lab

package e2e

import (
	"fmt"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
)

// TestFlags founds a cluster the long way: control and data have interfaces of
// their own, given by name or address, VXLAN another port, and the networks other
// subnets.
//
//	br0 --- eth0 10.83.0.N   control, gossip
//	    \-- dp0  10.84.0.N   VXLAN, port 7777
func TestFlags(t *testing.T) {
	l := labtest.Up(t, lab.Config{Hosts: 2, Dir: "/run/shoal-flags", Prefix: "sflg", Subnet: "10.83.0.0/24", Loose: true})
	w := &world{T: t, lab: l, api: l.Hosts()[0]}
	for _, h := range l.Hosts() {
		w.must(h.LoadImage(t.Context(), labtest.Program(t, "whoami.tar")))
		for _, line := range []string{
			fmt.Sprintf("ip -n sflg-lan link add dp%d type veth peer name dp0 netns %s", h.Index, h.Namespace),
			fmt.Sprintf("ip -n sflg-lan link set dp%d master br0 up", h.Index),
			fmt.Sprintf("ip -n %s addr add 10.84.0.%d/24 dev dp0", h.Namespace, h.Index),
			fmt.Sprintf("ip -n %s link set dp0 up", h.Namespace),
		} {
			if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", line, err, out)
			}
		}
	}
	w.foundByFlags(l.Hosts()[0], l.Hosts()[1])
	net := w.network("flags-net")
	tasks := w.startGlobal("flags-web", attached(net))
	if len(tasks) != 2 {
		t.Fatalf("%d tasks run", len(tasks))
	}
	var names []string
	for _, task := range tasks {
		names = append(names, "flags-web."+task.NodeID)
		if a := netip.MustParsePrefix(addresses(task, net)[0] + "/26"); !netip.MustParsePrefix("10.66.0.0/16").Contains(a.Addr()) {
			t.Errorf("a task has the address %s", a)
		}
	}
	for _, task := range tasks {
		w.eventually(15*time.Second, "the tasks reach each other", func() error {
			return balanced(task, "flags-web", addresses(task, net), names)
		})
	}
	for _, h := range l.Hosts() {
		w.tunnelled(h, "local 10.84.0."+fmt.Sprint(h.Index), "dstport 7777")
	}
}

// foundByFlags makes the two hosts a cluster.
func (w *world) foundByFlags(first, second lab.Host) {
	w.Helper()
	init := swarm.InitRequest{
		ListenAddr: "eth0:2399", AdvertiseAddr: "eth0", DataPathAddr: "10.84.0.1", DataPathPort: 7777,
		DefaultAddrPool: []netip.Prefix{netip.MustParsePrefix("10.66.0.0/16")}, SubnetSize: 26,
	}
	for text, bad := range map[string]func(*swarm.InitRequest){
		"not in valid range":      func(r *swarm.InitRequest) { r.DataPathPort = 1000 },
		"subnet size":             func(r *swarm.InitRequest) { r.SubnetSize = 30 },
		"is smaller than":         func(r *swarm.InitRequest) { r.SubnetSize = 12 },
		"interface nope":          func(r *swarm.InitRequest) { r.DataPathAddr = "nope" },
		"is not one of this node": func(r *swarm.InitRequest) { r.AdvertiseAddr = "10.83.0.99" },
	} {
		req := init
		bad(&req)
		if err := w.call(http.MethodPost, "/swarm/init", req, nil); err == nil || !strings.Contains(err.Error(), text) {
			w.Errorf("instead of %q init says %v", text, err)
		}
	}
	w.must(w.call(http.MethodPost, "/swarm/init", init, nil))
	var cluster swarm.Swarm
	w.must(w.call(http.MethodGet, "/swarm", nil, &cluster))
	if cluster.DataPathPort != 7777 || cluster.SubnetSize != 26 || !slices.Equal(cluster.DefaultAddrPool, init.DefaultAddrPool) {
		w.Errorf("the cluster has port %d, pools %v in /%d", cluster.DataPathPort, cluster.DefaultAddrPool, cluster.SubnetSize)
	}
	w.must(second.Call(w.Context(), http.MethodPost, "/swarm/join", swarm.JoinRequest{
		ListenAddr: "0.0.0.0", AdvertiseAddr: "eth0:2377", DataPathAddr: "dp0",
		RemoteAddrs: []string{first.Address.String() + ":2399"}, JoinToken: cluster.JoinTokens.Worker,
	}, nil))
	w.eventually(20*time.Second, "both nodes are ready", func() error {
		nodes, err := get[[]swarm.Node](w, "/nodes", nil)
		for _, n := range nodes {
			if n.Status.State != swarm.NodeStateReady {
				err = fmt.Errorf("%s is %s", n.Description.Hostname, n.Status.State)
			}
		}
		if err == nil && len(nodes) != 2 {
			err = fmt.Errorf("there are %d nodes", len(nodes))
		}
		return err
	})
}

// tunnelled wants every tunnel of a host to be made so.
func (w *world) tunnelled(h lab.Host, want ...string) {
	w.Helper()
	spaces, err := filepath.Glob(filepath.Join(h.Dir, "exec", "netns", "net-*"))
	w.must(err)
	if len(spaces) == 0 {
		w.Errorf("%s has no overlay network", h.Name)
	}
	for _, space := range spaces {
		out, err := exec.Command("nsenter", "--net="+space, "ip", "-d", "link", "show", "type", "vxlan").CombinedOutput()
		w.must(err)
		for _, part := range want {
			if !strings.Contains(string(out), part) {
				w.Errorf("a tunnel of %s is not made with %q: %s", h.Name, part, out)
			}
		}
	}
}
