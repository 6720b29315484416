//go:build lab

package rtnl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"shoal/bench/need"
	"shoal/overlay/netns"
	"shoal/overlay/vxlan"
)

// node is one fake host: a namespace with a leg in a common bridge namespace,
// its own Kernel, and tasks.
type node struct {
	t       testing.TB
	kernel  *Kernel
	dir     string
	host    string
	vtep    netip.Addr
	desired vxlan.Desired
}

func run(t testing.TB, command string) string {
	t.Helper()
	out, err := try(command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

func try(command string) (string, error) {
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	return string(out), err
}

func in(ns, command string) string { return "nsenter --net=" + ns + " " + command }

// needs skips where the machine cannot make the namespaces or links.
func needs(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Feature(t, "netns", errors.New("not root"))
	}
	path := filepath.Join(t.TempDir(), "overlay-probe")
	need.Feature(t, "netns", netns.Create(path))
	_, err := try("nsenter --net=" + path + " ip link add probe type vxlan id 1 dstport 1 local 127.0.0.1")
	if deleted := netns.Delete(path); deleted != nil {
		t.Fatal(deleted)
	}
	need.Feature(t, "vxlan", err)
}

// hosts makes n hosts on one underlay of the given MTU.
func hosts(t testing.TB, n, mtu int) []*node {
	needs(t)
	dir := t.TempDir()
	fabric := filepath.Join(dir, "overlay-fabric")
	create(t, fabric)
	run(t, in(fabric, "ip link add name sw type bridge"))
	run(t, in(fabric, fmt.Sprintf("ip link set dev sw mtu %d up", mtu)))
	var out []*node
	for i := 1; i <= n; i++ {
		h := &node{t: t, dir: dir + fmt.Sprintf("/h%d", i), vtep: netip.AddrFrom4([4]byte{10, 77, 9, byte(i)})}
		h.host = h.dir + "/host"
		create(t, h.host)
		run(t, in(fabric, fmt.Sprintf("ip link add p%d mtu %d type veth peer name under mtu %d netns %s", i, mtu, mtu, h.host)))
		run(t, in(fabric, fmt.Sprintf("ip link set p%d master sw up", i)))
		run(t, in(h.host, fmt.Sprintf("sh -c 'ip addr add %s/24 dev under; ip addr add fd77::%d/64 nodad dev under; ip link set under up; ip link set lo up'", h.vtep, i)))
		h.fresh()
		out = append(out, h)
	}
	return out
}

func create(t testing.TB, path string) {
	t.Helper()
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(path); err != nil {
			t.Error(err)
		}
	})
}

// fresh gives the host a Kernel that knows nothing yet, as after a restart.
func (h *node) fresh() {
	h.t.Helper()
	if h.kernel != nil {
		h.kernel.Close()
	}
	kernel, err := New(Config{Host: h.host, Directory: h.dir})
	if err != nil {
		h.t.Fatal(err)
	}
	h.kernel = kernel
	h.t.Cleanup(func() { kernel.Close() })
}

func (h *node) plan() []vxlan.Op {
	h.t.Helper()
	actual, err := h.kernel.Read(context.Background(), h.desired)
	if err != nil {
		h.t.Fatal(err)
	}
	return vxlan.Plan(h.desired, actual)
}

// converge plans and applies once and wants nothing left to do.
func (h *node) converge() []vxlan.Op {
	h.t.Helper()
	ops := h.plan()
	if err := h.kernel.Apply(context.Background(), ops); err != nil {
		h.t.Fatal(err, "\nplan:\n", text(ops))
	}
	if rest := h.plan(); len(rest) != 0 {
		h.t.Fatalf("not converged:\n%s\nafter\n%s", text(rest), text(ops))
	}
	return ops
}

func text(ops []vxlan.Op) string {
	var b strings.Builder
	for _, op := range ops {
		fmt.Fprintln(&b, op)
	}
	return b.String()
}

const vni = 4099

func mac(host, task int) string { return fmt.Sprintf("02:42:0a:14:%02x:%02x", host, task) }

func taskAddrs(host, task int) []netip.Addr {
	return []netip.Addr{
		netip.AddrFrom4([4]byte{10, 20, byte(host), byte(task)}),
		netip.MustParseAddr(fmt.Sprintf("fd00:20::%d:%d", host, task)),
	}
}

// wish builds what host i of n wants: one network with two tasks on every host.
func (h *node) wish(i, n, tasks, mtu int) {
	network := vxlan.Network{
		ID: "network", Namespace: h.dir + "/net-network", VNI: vni, Local: h.vtep, Port: 4789, MTU: mtu,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")},
	}
	h.desired = vxlan.Desired{Gateway: &vxlan.Gateway{Name: "shoal_gw", Addrs: prefixes("172.18.0.1/16", "fd98::1/64"), MTU: mtu}}
	for host := 1; host <= n; host++ {
		for task := 1; task <= tasks; task++ {
			if host != i {
				network.Peers = append(network.Peers, vxlan.Peer{
					Addrs: taskAddrs(host, task), MAC: mac(host, task), VTEP: netip.AddrFrom4([4]byte{10, 77, 9, byte(host)}),
				})
				continue
			}
			h.desired.Sandboxes = append(h.desired.Sandboxes, h.task(host, task, mtu))
		}
	}
	h.desired.Networks = []vxlan.Network{network}
}

func (h *node) task(host, task, mtu int) vxlan.Sandbox {
	path := h.sandbox(task)
	if !netns.Exists(path) {
		create(h.t, path)
	}
	addrs := taskAddrs(host, task)
	return vxlan.Sandbox{
		ID: fmt.Sprintf("task%d", task), Namespace: path,
		Interfaces: []vxlan.Interface{
			{Name: "eth0", NetworkID: "network", MAC: mac(host, task), MTU: mtu,
				Addrs: []netip.Prefix{netip.PrefixFrom(addrs[0], 16), netip.PrefixFrom(addrs[1], 64)}},
			{Name: "eth1", MAC: fmt.Sprintf("02:42:ac:12:00:%02x", task+1), MTU: mtu,
				Addrs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 18, 0, byte(task + 1)}), 16)}},
		},
		Routes: []vxlan.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.18.0.1"), Interface: "eth1"}},
	}
}

func (h *node) sandbox(task int) string { return fmt.Sprintf("%s/task-%d", h.dir, task) }

// pair makes two hosts with two tasks each, all applied and answering.
func pair(t testing.TB) (a, b *node) {
	const under, inner = 1500, 1450
	h := hosts(t, 2, under)
	for i, n := range h {
		n.wish(i+1, 2, 2, inner)
		n.converge()
		for task := 1; task <= 2; task++ {
			echo(t, n.sandbox(task))
		}
		echo(t, n.host)
	}
	t.Cleanup(func() {
		for _, n := range h {
			n.t = t
			n.desired = vxlan.Desired{}
			n.converge()
		}
	})
	return h[0], h[1]
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, p := range texts {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
