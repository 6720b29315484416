//go:build lab

package crash

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/ipvs"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
	"shoal/dns/zone"
	"shoal/node/fabric"
	"shoal/node/plan"
	"shoal/node/resolver"
	"shoal/overlay/endpoint"
	"shoal/overlay/rtnl"
)

// childVariable holds what a copy of the test's program is to do instead of the
// test: a phase and the node's directory.
const childVariable = "SHOAL_CRASH_CHILD"

// The phases of a node's life: it gets its network, another one, and leaves.
const (
	build  = "build"
	change = "change"
	leave  = "leave"
)

func TestMain(m *testing.M) {
	if phase := os.Getenv(childVariable); phase != "" {
		if err := child(phase, os.Getenv(childVariable+"_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is one run of the daemon's network half, from its start until its kernel
// is what the phase asks for.
func child(phase, dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	self := plan.Self{ID: "n1", Number: 1, VTEP: netip.MustParseAddr("192.0.2.1"), Port: 4789, MTU: 1500, GatewayMTU: 1500, Probes: true,
		NamespaceDir: filepath.Join(dir, "netns")}
	kernel, err := rtnl.New(rtnl.Config{Directory: self.NamespaceDir})
	if err != nil {
		return err
	}
	defer kernel.Close()
	w := wish(phase)
	var balancer lb.Driver = nft.New()
	if ipvs.Probe(ctx) == nil {
		balancer = ipvs.New()
	}
	f, err := fabric.New(fabric.Config{
		Dir: dir, Self: self, Overlay: kernel, Balancer: balancer, Translator: nft.New(), Names: names{},
		Assigned: func() ([]*api.Network, []*api.Service, []*api.Node) { return w.networks, w.services, w.nodes },
		View:     w.table.View, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if phase == leave {
		return f.Clear(ctx)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(running)
	}()
	defer func() {
		stop()
		<-ended
	}()
	for _, t := range w.tasks {
		if _, err := f.Attach(ctx, t); err != nil {
			return fmt.Errorf("attach %s: %w", t.ID, err)
		}
	}
	for _, id := range w.gone {
		if err := f.Detach(ctx, id); err != nil {
			return fmt.Errorf("detach %s: %w", id, err)
		}
	}
	return settle(ctx, f)
}

// settle waits until nothing differs from the wish.
func settle(ctx context.Context, f *fabric.Fabric) error {
	for {
		drift, err := f.Drift(ctx)
		if err == nil && len(drift) == 0 && f.Status().Err == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the kernel still differs: %q, %v, last error %q", drift, err, f.Status().Err)
		case <-time.After(5 * time.Millisecond):
			f.Trigger()
		}
	}
}

// names stand for the name server, which is a process of its own.
type names struct{}

func (names) Serve(context.Context, resolver.Task) (uint16, error) { return 35353, nil }
func (names) Drop(context.Context, string) error                   { return nil }
func (names) SetNames(context.Context, zone.Model) error           { return nil }

// world is what a phase asks for.
type world struct {
	networks []*api.Network
	services []*api.Service
	nodes    []*api.Node
	table    *endpoint.Table
	tasks    []*api.Task
	gone     []string
}

func wish(phase string) *world {
	w := &world{table: endpoint.New("n1", 1)}
	ingress, app, extra := aNetwork("ingress", 4096, 0), aNetwork("app", 4097, 1), aNetwork("extra", 4098, 2)
	ingress.Spec.Ingress = true
	w.networks = []*api.Network{ingress, app, extra}
	for i := range 3 {
		n := &api.Node{Number: uint32(i + 1), DataPathAddr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		n.ID = fmt.Sprint("n", i+1)
		w.nodes = append(w.nodes, n)
	}
	one, two := aTask("t1", "web", 11, ingress, app), aTask("t2", "web", 12, app, extra)
	w.services = []*api.Service{aService("web", 2, 8080, app), aService("api", 3, 8081, app, extra)}
	w.tasks = []*api.Task{one, two}
	w.remote("n2", 21, "api", app, ingress)
	w.remote("n3", 22, "web", app)
	w.remote("n3", 23, "api", extra)
	if phase == change { // a task, a network and a service less, another service, other peers
		w.networks, w.tasks, w.gone = w.networks[:2], w.tasks[:1], []string{"t2"}
		w.services = []*api.Service{aService("web", 2, 8080, app), aService("new", 4, 8082, app)}
		w.table = endpoint.New("n1", 1)
		w.remote("n2", 24, "new", app, ingress)
		w.nodes = w.nodes[:2]
	}
	return w
}

func aNetwork(id string, vni uint32, number byte) *api.Network {
	n := &api.Network{VNI: vni}
	n.ID, n.Spec.Name = id, id
	n.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, number, 0}), 24)}}}
	return n
}

// addr is an endpoint's address on a network.
func addr(n *api.Network, last byte) netip.Addr {
	b := n.IPAMOptions.Configs[0].Subnet.Addr().As4()
	b[3] = last
	return netip.AddrFrom4(b)
}

func aService(id string, vip byte, port uint32, networks ...*api.Network) *api.Service {
	s := &api.Service{}
	s.ID, s.Spec.Name = id, id
	for _, n := range networks {
		s.Spec.TaskTemplate.Networks = append(s.Spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: n.ID})
		s.Endpoint.VirtualIPs = append(s.Endpoint.VirtualIPs, swarm.EndpointVirtualIP{NetworkID: n.ID, Addr: netip.PrefixFrom(addr(n, vip), 24)})
	}
	s.Endpoint.Ports = []swarm.PortConfig{{Protocol: network.TCP, TargetPort: 80, PublishedPort: port, PublishMode: swarm.PortConfigPublishModeIngress}}
	return s
}

func aTask(id, service string, last byte, networks ...*api.Network) *api.Task {
	t := &api.Task{ServiceName: service}
	t.ID, t.ServiceID, t.Slot, t.NodeID = id, service, int(last), "n1"
	for _, n := range networks {
		a := swarm.NetworkAttachment{Addresses: []netip.Prefix{netip.PrefixFrom(addr(n, last), 24)}}
		a.Network.ID, a.Network.Spec = n.ID, n.Spec
		t.NetworksAttachments = append(t.NetworksAttachments, a)
	}
	return t
}

// remote adds a task of another node to what gossip has told.
func (w *world) remote(owner string, last byte, service string, networks ...*api.Network) {
	v := endpoint.Value{ServiceID: service, ServiceName: service, TaskName: service + ".9", Slot: int(last), VTEP: netip.AddrFrom4([4]byte{192, 0, 2, owner[1] - '0'}), State: endpoint.Ready}
	for _, n := range networks {
		a := addr(n, last)
		v.Attachments = append(v.Attachments, endpoint.Attachment{NetworkID: n.ID, MAC: plan.MAC(a), Addrs: []netip.Addr{a}})
	}
	w.table.Merge([]endpoint.Record{{Owner: owner, Key: fmt.Sprint("r", last), Seq: uint64(last), Epoch: 1, Value: v}})
}
