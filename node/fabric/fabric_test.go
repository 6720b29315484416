package fabric

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/dataplane/lb/lbfake"
	"shoal/dns/server"
	"shoal/dns/zone"
	"shoal/node/plan"
	"shoal/node/resolver"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
	"shoal/overlay/vxlan/vxlantest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kernel is a machine's in memory. Like a real one it refuses to work in a
// namespace that is not there; refuse names more that goes wrong, by the kind of
// work and its namespace. Sockets are the test machine's.
type kernel struct {
	mu           sync.Mutex
	links        *vxlantest.Kernel
	balancer     *lbfake.Driver
	translations map[string]lb.Translation
	refuse       map[string]error
	calls        []string
	applying     func() // called before every change of the overlay
}

func (k *kernel) call(kind, namespace string) error {
	k.calls = append(k.calls, strings.TrimSpace(kind+" "+filepath.Base(namespace)))
	if err := k.refuse[kind+" "+filepath.Base(namespace)]; err != nil {
		return err
	}
	if namespace != "" && !slices.Contains(k.links.Namespaces(), namespace) {
		return fmt.Errorf("namespace %s: %w", namespace, fs.ErrNotExist)
	}
	return nil
}

func (k *kernel) lock() func() { k.mu.Lock(); return k.mu.Unlock }

func (k *kernel) taken() []string {
	defer k.lock()()
	out := k.calls
	k.calls = nil
	return out
}

type overlay struct{ *kernel }

func (o overlay) Read(ctx context.Context, d vxlan.Desired) (vxlan.Actual, error) {
	defer o.lock()()
	o.calls = append(o.calls, "read")
	return o.links.Read(ctx, d)
}

func (o overlay) ReadPeers(ctx context.Context, n vxlan.Network) (vxlan.Link, bool, error) {
	defer o.lock()()
	o.calls = append(o.calls, "peers "+n.ID)
	return o.links.ReadPeers(ctx, n)
}

func (o overlay) Apply(ctx context.Context, ops []vxlan.Op) error {
	if o.applying != nil {
		o.applying()
	}
	defer o.lock()()
	o.calls = append(o.calls, "wire")
	if err := o.refuse["wire"]; err != nil {
		return err
	}
	return o.links.Apply(ctx, ops)
}

type balancer struct{ *kernel }

func (b balancer) Name() string                  { return "fake" }
func (b balancer) Supports(a lb.Algorithm) error { return b.balancer.Supports(a) }

func (b balancer) Read(ctx context.Context, ns string) (lb.Desired, error) {
	return b.balancer.Read(ctx, ns)
}

func (b balancer) Apply(ctx context.Context, d lb.Desired) (int, error) {
	defer b.lock()()
	if err := b.call("balance", d.Namespace); err != nil {
		return 0, err
	}
	return b.balancer.Apply(ctx, d)
}

type translator struct{ *kernel }

func (t translator) ReadTranslation(_ context.Context, ns string) (lb.Translation, error) {
	defer t.lock()()
	return t.translations[ns], nil
}

func (t translator) Translate(_ context.Context, wish lb.Translation) (int, error) {
	defer t.lock()()
	if err := t.call("translate", wish.Namespace); err != nil {
		return 0, err
	}
	t.translations[wish.Namespace] = wish
	return 1, nil
}

type namespaces struct{ *kernel }

func (n namespaces) Create(path string) error {
	defer n.lock()()
	if slices.Contains(n.links.Namespaces(), path) {
		return fs.ErrExist
	}
	n.links.AddSandbox(path)
	return nil
}

func (n namespaces) Delete(path string) error {
	defer n.lock()()
	n.links.Vanish(path)
	return nil
}

func (n namespaces) Exists(path string) bool {
	defer n.lock()()
	return slices.Contains(n.links.Namespaces(), path)
}

func (n namespaces) Sweep(dir string, keep func(string) bool) (removed []string, err error) {
	defer n.lock()()
	for _, p := range n.links.Namespaces() {
		if filepath.Dir(p) == dir && !keep(p) {
			n.links.Vanish(p)
			removed = append(removed, p)
		}
	}
	return removed, nil
}

func (n namespaces) Dial(ctx context.Context, path, network, address string) (net.Conn, error) {
	defer n.lock()()
	if err := n.call("dial", path); err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

func (n namespaces) Unheard(path string) (int, error) {
	defer n.lock()()
	return 0, n.call("unheard", path)
}

// names is a name server in memory.
type names struct {
	*kernel
	zone  *zone.Zone
	tasks map[string]resolver.Task
}

func (n *names) Serve(_ context.Context, t resolver.Task) (uint16, error) {
	defer n.lock()()
	if err := n.call("serve", t.Namespace); err != nil {
		return 0, err
	}
	n.tasks[t.ID] = t
	return 4000, nil
}

func (n *names) Drop(_ context.Context, id string) error {
	defer n.lock()()
	delete(n.tasks, id)
	return n.refuse["drop"]
}

func (n *names) SetNames(_ context.Context, m zone.Model) error {
	defer n.lock()()
	if err := n.refuse["name"]; err != nil {
		return err
	}
	n.zone = zone.Build(m)
	return nil
}

// bed is a fabric over a kernel in memory.
type bed struct {
	*Fabric
	kernel   *kernel
	names    *names
	table    *endpoint.Table
	networks []*api.Network
	services []*api.Service
	applied  int
	held     []string // back, when the last step was told
}

func newBed(t *testing.T) *bed {
	t.Helper()
	k := &kernel{
		links: vxlantest.New(), balancer: lbfake.New(), translations: map[string]lb.Translation{}, refuse: map[string]error{},
	}
	b := &bed{kernel: k, names: &names{kernel: k, tasks: map[string]resolver.Task{}}, table: endpoint.New("n1", 1)}
	net0 := &api.Network{VNI: 4097}
	net0.ID, net0.Spec.Name = "net0", "front"
	net0.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{{Subnet: netip.MustParsePrefix("10.0.1.0/24")}}}
	web := &api.Service{}
	web.ID, web.Spec.Name = "web", "web"
	web.Spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "net0"}}
	web.Endpoint.VirtualIPs = []swarm.EndpointVirtualIP{{NetworkID: "net0", Addr: netip.MustParsePrefix("10.0.1.2/24")}}
	b.networks, b.services = []*api.Network{net0}, []*api.Service{web}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	f, err := New(Config{
		Dir: t.TempDir(), Overlay: overlay{k}, Balancer: balancer{k}, Translator: translator{k}, Namespaces: namespaces{k},
		Names: b.names, Logger: logger, Resync: time.Hour, View: b.table.View,
		Self: plan.Self{ID: "n1", Number: 1, VTEP: netip.MustParseAddr("192.0.2.1"), Port: 4789, MTU: 1500,
			NamespaceDir: "/run/ns", GatewayMTU: 1500},
		Assigned: func() ([]*api.Network, []*api.Service, []*api.Node) { return b.networks, b.services, nil },
		Applied:  func(_ *endpoint.View, held ...string) { b.applied, b.held = b.applied+1, held },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Fabric = f
	t.Cleanup(func() {
		for _, l := range f.Locals() {
			if err := f.Detach(context.Background(), l.Task.ID); err != nil {
				t.Error(err)
			}
		}
	})
	return b
}

func aTask(id, addr string) *api.Task {
	t := &api.Task{ServiceName: "web"}
	t.ID, t.ServiceID, t.Slot = id, "web", 1
	a := swarm.NetworkAttachment{Addresses: []netip.Prefix{netip.MustParsePrefix(addr)}}
	a.Network.ID = "net0"
	t.NetworksAttachments = []swarm.NetworkAttachment{a}
	return t
}

// attach attaches while the test itself makes the steps.
func (b *bed) attach(t *testing.T, tasks ...*api.Task) error {
	t.Helper()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer wg.Wait()
	defer cancel()
	for _, task := range tasks {
		wg.Go(func() { _, _ = b.Attach(ctx, task) }) // waits for a loop that does not run
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		there := 0
		for _, l := range b.Locals() {
			if slices.ContainsFunc(tasks, func(task *api.Task) bool { return task.ID == l.Task.ID }) {
				there++
			}
		}
		if there == len(tasks) {
			return b.step(t.Context())
		}
		if time.Now().After(deadline) {
			t.Fatal("a task is not attached")
		}
	}
}

func (b *bed) record(id, addr string) {
	b.table.Set(id, endpoint.Value{ServiceID: "web", ServiceName: "web", TaskName: "web.1", VTEP: netip.MustParseAddr("192.0.2.1"),
		Attachments: []endpoint.Attachment{{NetworkID: "net0", MAC: "02:42:0a:00:01:03", Addrs: []netip.Addr{netip.MustParseAddr(addr)}}}})
}

func TestOrderOfAStep(t *testing.T) {
	b := newBed(t)
	b.record("t1", "10.0.1.3")
	if err := b.attach(t, aTask("t1", "10.0.1.3/24")); err != nil {
		t.Fatal(err)
	}
	want := []string{"read", "wire", "serve task-t1", "translate", "translate task-t1", "balance task-t1"}
	got := b.kernel.taken()
	if !slices.Equal(slices.DeleteFunc(got, func(s string) bool { return s == "translate ." }), slices.DeleteFunc(want, func(s string) bool { return s == "translate" })) {
		t.Errorf("the step did %q, want %q", got, want)
	}
	if addrs, known := b.names.zone.Addrs([]string{"net0"}, "web"); !known || len(addrs) != 1 || addrs[0].String() != "10.0.1.2" {
		t.Errorf("web is %v", addrs)
	}
	l := b.Locals()[0]
	redirects := b.kernel.translations[l.Namespace].Redirects
	if l.DNSPort == 0 || len(redirects) != 2 || redirects[0].To.Port() != l.DNSPort {
		t.Errorf("the name server of %+v is reached by %+v", l, redirects)
	}
	if b.applied != 1 {
		t.Errorf("told %d times", b.applied)
	}
	if err := b.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := b.kernel.taken(); len(again) != 0 {
		t.Errorf("nothing changed, yet the step did %q", again)
	}
	if drift, err := b.Drift(t.Context()); err != nil || len(drift) != 0 {
		t.Errorf("drift is %q, %v", drift, err)
	}
}

// TestTroubleStaysInItsPlace: the others are put right and told of, what may be stale
// is held back, and only the place itself is tried again.
func TestTroubleStaysInItsPlace(t *testing.T) {
	trouble := errors.New("trouble")
	for _, tt := range []struct {
		kind  string
		told  bool
		held  []string
		again []string // what the next step does
	}{
		{"translate task-t1", true, nil, []string{"translate task-t1"}},
		{"balance task-t1", true, []string{"net0"}, []string{"balance task-t1"}},
		{"serve task-t1", true, nil, []string{"serve task-t1"}},
		{"translate .", true, []string{own}, []string{"translate ."}},
		{"name", false, nil, nil},
		{"wire", false, nil, []string{"read", "wire"}},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			b := newBed(t)
			b.record("t1", "10.0.1.3")
			if err := b.attach(t, aTask("t1", "10.0.1.3/24"), aTask("t2", "10.0.1.4/24")); err != nil {
				t.Fatal(err)
			}
			told := b.applied
			b.kernel.refuse[tt.kind] = trouble
			b.record("t2", "10.0.1.4")
			b.fullSync = time.Time{}
			if tt.kind == "serve task-t1" {
				b.cfg.Questions = func(*api.Task) server.Task { return server.Task{Whole: true} }
			}
			if err := b.step(t.Context()); !errors.Is(err, trouble) {
				t.Fatalf("the step says %v", err)
			}
			if (b.applied == told+1) != tt.told || tt.told && !slices.Equal(b.held, tt.held) {
				t.Errorf("told %d times more, held back %q", b.applied-told, b.held)
			}
			have, err := b.kernel.balancer.Read(t.Context(), "/run/ns/task-t2")
			if err != nil || len(have.Services) != 1 || len(have.Services[0].Backends) != 2 {
				t.Errorf("the other task is balanced %+v, %v", have, err)
			}
			if addrs, _ := b.names.zone.Addrs([]string{"net0"}, "tasks.web"); len(addrs) != 2 && tt.kind != "name" {
				t.Errorf("the names are %v", addrs)
			}
			b.kernel.taken()
			delete(b.kernel.refuse, tt.kind)
			told = b.applied
			if err := b.step(t.Context()); err != nil {
				t.Fatal(err)
			}
			if calls := b.kernel.taken(); !slices.Equal(calls, tt.again) {
				t.Errorf("after the failure the step did %q, want %q", calls, tt.again)
			}
			if b.applied != told+1 || len(b.held) > 0 {
				t.Errorf("a step that went well was told %d times, held back %q", b.applied-told, b.held)
			}
		})
	}
}

// TestNameServerOfATask: it knows the task's networks, asks whom the task wants to
// be asked, stays inside with a task that does, and goes with it.
func TestNameServerOfATask(t *testing.T) {
	b := newBed(t)
	own := []netip.AddrPort{netip.MustParseAddrPort("10.9.9.9:53")}
	b.cfg.Questions = func(*api.Task) server.Task { return server.Task{Servers: own, Whole: true} }
	inside := aTask("t2", "10.0.1.4/24")
	inside.NetworksAttachments[0].Network.Spec.Internal = true
	if err := b.attach(t, aTask("t1", "10.0.1.3/24"), inside); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]server.Task{
		"t1": {Networks: []string{"net0"}, Servers: own, Whole: true},
		"t2": {Networks: []string{"net0"}, Servers: own, Whole: true, Inside: true},
	} {
		if got := b.names.tasks[id]; !reflect.DeepEqual(got.Task, want) || got.Namespace != "/run/ns/task-"+id {
			t.Errorf("%s: %+v, want %+v", id, got, want)
		}
	}
	own = nil
	b.kernel.taken()
	if err := b.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := b.names.tasks["t1"].Servers; got != nil {
		t.Errorf("after a change it asks %v", got)
	}
	if calls := b.kernel.taken(); slices.Contains(calls, "translate task-t1") {
		t.Errorf("for another server the step did %q", calls)
	}
	b.kernel.refuse["drop"] = errors.New("the name server is away")
	if err := b.Detach(t.Context(), "t1"); err != nil {
		t.Error(err)
	}
	if _, there := b.names.tasks["t1"]; there || len(b.Locals()) != 1 {
		t.Error("a task that is gone has a name server")
	}
}

func TestUnknownAlgorithmIsRoundRobin(t *testing.T) {
	b := newBed(t)
	b.services[0].Spec.Labels = map[string]string{api.LabelAlgorithm: "nonsense"}
	b.record("t1", "10.0.1.3")
	if err := b.attach(t, aTask("t1", "10.0.1.3/24")); err != nil {
		t.Fatal(err)
	}
	if got := b.Wish().Balancers[0].Services[0].Algorithm; got != lb.RoundRobin {
		t.Errorf("balanced by %q", got)
	}
}

func TestDetachLeavesNothing(t *testing.T) {
	b := newBed(t)
	if err := b.attach(t, aTask("t1", "10.0.1.3/24")); err != nil {
		t.Fatal(err)
	}
	// A step that still knows the task is in the middle of its work.
	detached := make(chan error, 1)
	b.kernel.applying = sync.OnceFunc(func() {
		go func() { detached <- b.Detach(context.Background(), "t1") }()
		for deadline := time.Now().Add(50 * time.Millisecond); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if !(namespaces{b.kernel}).Exists("/run/ns/task-t1") {
				return
			}
		}
	})
	b.fullSync = time.Time{}
	if err := b.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-detached; err != nil {
		t.Fatal(err)
	}
	if err := b.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := b.kernel.links.Namespaces(); slices.ContainsFunc(left, func(p string) bool { return strings.Contains(p, "task-") }) {
		t.Errorf("left %q", left)
	}
	if len(b.addresses.Taken) != 0 {
		t.Errorf("addresses taken: %v", b.addresses.Taken)
	}
	if err := b.Detach(t.Context(), "t1"); err != nil {
		t.Errorf("detached twice: %v", err)
	}
}

func TestAttachAgainKeepsWhatThereIs(t *testing.T) {
	b := newBed(t)
	task := aTask("t1", "10.0.1.3/24")
	if err := b.attach(t, task); err != nil {
		t.Fatal(err)
	}
	b.SetLive("t1", true)
	before := b.Locals()
	if err := b.attach(t, task); err != nil {
		t.Fatal(err)
	}
	if after := b.Locals(); !reflect.DeepEqual(before, after) {
		t.Errorf("before %+v\nafter  %+v", before, after)
	}
}

func TestRunWiresAndLetsGo(t *testing.T) {
	b := newBed(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	defer func() { cancel(); <-done }()
	path, err := b.Attach(ctx, aTask("t1", "10.0.1.3/24"))
	if err != nil || path != "/run/ns/task-t1" {
		t.Fatal(path, err)
	}
	if st := b.Status(); st.Err != "" || st.Steps == 0 {
		t.Errorf("status is %+v", st)
	}
	if err := b.Detach(ctx, "t1"); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	if err := b.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := b.kernel.links.Namespaces(); slices.ContainsFunc(left, func(p string) bool { return p != "" }) {
		t.Errorf("left %q", left)
	}
}

func TestAccepts(t *testing.T) {
	b := newBed(t)
	task := &api.Task{}
	task.ID = "t1"
	b.kernel.links.AddSandbox("/run/ns/task-t1")
	var c net.ListenConfig
	l, err := c.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if !b.Accepts(t.Context(), task, []uint16{port}) || !b.Accepts(t.Context(), task, nil) {
		t.Error("a task that listens does not accept")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Accepts(t.Context(), task, []uint16{port}) {
		t.Error("a task that does not listen accepts")
	}
	task.NetworksAttachments = []swarm.NetworkAttachment{{Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.0.1.3/24"), netip.MustParsePrefix("fd00::3/64")}}}
	if got := listenAddr(task).String(); got != "10.0.1.3" {
		t.Errorf("asked at %s", got)
	}
}

func TestNeedsGateway(t *testing.T) {
	attached := func(internal, ingress bool) swarm.NetworkAttachment {
		var a swarm.NetworkAttachment
		a.Network.Spec.Internal, a.Network.Spec.Ingress = internal, ingress
		return a
	}
	host := []swarm.PortConfig{{PublishMode: swarm.PortConfigPublishModeHost}}
	tests := []struct {
		name     string
		networks []swarm.NetworkAttachment
		ports    []swarm.PortConfig
		want     bool
	}{
		{"no network", nil, nil, true},
		{"one", []swarm.NetworkAttachment{attached(false, false)}, nil, true},
		{"internal", []swarm.NetworkAttachment{attached(true, false)}, nil, false},
		{"internal and published", []swarm.NetworkAttachment{attached(true, false), attached(false, true)}, nil, false},
		{"internal and not", []swarm.NetworkAttachment{attached(true, false), attached(false, false)}, nil, true},
		{"internal with a port of the host", []swarm.NetworkAttachment{attached(true, false)}, host, true},
		{"the mesh alone", []swarm.NetworkAttachment{attached(false, true)}, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			task := &api.Task{Ports: tt.ports}
			task.NetworksAttachments = tt.networks
			if got := needsGateway(task); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
