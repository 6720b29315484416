package sim

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"shoal/dataplane/lb"
	"shoal/dataplane/lb/lbfake"
	"shoal/dns/zone"
	"shoal/node/agent"
	"shoal/node/resolver"
	"shoal/node/runtime"
	"shoal/node/runtime/fake"
	"shoal/overlay/vxlan"
	"shoal/overlay/vxlan/vxlantest"
)

// machine is what of a host outlives its daemon: kernel and containers. It
// implements what the fabric needs of a kernel, and like one it refuses to
// balance or translate in a namespace that is not there.
type machine struct {
	runtime  *fake.Runtime
	balancer *lbfake.Driver
	// applied is told of every change of a balancer.
	applied func(before, after lb.Desired)

	mu           sync.Mutex
	kernel       *vxlantest.Kernel
	translations map[string]lb.Translation
	// broken are the namespaces in which no balancer can be changed.
	broken map[string]bool
}

func newMachine() *machine {
	m := &machine{runtime: fake.New(fake.Config{Images: []string{"shoal/whoami:latest", "shoal/whoami:v2"}})}
	m.reboot()
	return m
}

// reboot ends every process and empties the kernel.
func (m *machine) reboot() {
	m.runtime.KillAll()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kernel, m.balancer, m.translations = vxlantest.New(), lbfake.New(), map[string]lb.Translation{}
}

// hasLocked says whether a namespace exists.
func (m *machine) hasLocked(path string) bool {
	if path == "" {
		return true
	}
	for _, p := range m.kernel.Namespaces() {
		if p == path {
			return true
		}
	}
	return false
}

// dropLocked takes away what went with namespaces that are gone.
func (m *machine) dropLocked(before []string) {
	for _, p := range before {
		if !m.hasLocked(p) {
			m.balancer.Flush(p)
			delete(m.translations, p)
		}
	}
}

// overlay is the machine's kernel for links and entries.
type overlay struct{ *machine }

// Read implements fabric.Overlay.
func (o overlay) Read(ctx context.Context, d vxlan.Desired) (vxlan.Actual, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kernel.Read(ctx, d)
}

// ReadPeers implements fabric.Overlay.
func (o overlay) ReadPeers(ctx context.Context, n vxlan.Network) (vxlan.Link, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kernel.ReadPeers(ctx, n)
}

// Apply implements fabric.Overlay.
func (o overlay) Apply(ctx context.Context, ops []vxlan.Op) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.kernel.Namespaces()
	defer o.dropLocked(before)
	return o.kernel.Apply(ctx, ops)
}

// balancer is the machine's lb.Driver.
type balancer struct{ *machine }

func (b balancer) driver(namespace string) (*lbfake.Driver, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.hasLocked(namespace) {
		return nil, fmt.Errorf("namespace %s: %w", namespace, fs.ErrNotExist)
	}
	return b.machine.balancer, nil
}

// Name implements lb.Driver.
func (b balancer) Name() string { return "fake" }

// Supports implements lb.Driver.
func (b balancer) Supports(a lb.Algorithm) error { return lbfake.New().Supports(a) }

// Read implements lb.Driver.
func (b balancer) Read(ctx context.Context, namespace string) (lb.Desired, error) {
	d, err := b.driver(namespace)
	if err != nil {
		return lb.Desired{}, err
	}
	return d.Read(ctx, namespace)
}

// breakDown makes every change of the balancer in a namespace fail, from now on.
func (m *machine) breakDown(namespace string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = map[string]bool{namespace: true}
}

// Apply implements lb.Driver.
func (b balancer) Apply(ctx context.Context, wish lb.Desired) (int, error) {
	d, err := b.driver(wish.Namespace)
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	broken := b.broken[wish.Namespace]
	b.mu.Unlock()
	if broken {
		return 0, fmt.Errorf("change the balancer in %s: %w", wish.Namespace, syscall.ENOMEM)
	}
	before, err := d.Read(ctx, wish.Namespace)
	if err != nil {
		return 0, err
	}
	n, err := d.Apply(ctx, wish)
	if err == nil && n > 0 {
		b.applied(before, wish)
	}
	return n, err
}

// translator is the machine's lb.Translator.
type translator struct{ *machine }

// ReadTranslation implements lb.Translator.
func (t translator) ReadTranslation(_ context.Context, namespace string) (lb.Translation, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.hasLocked(namespace) {
		return lb.Translation{}, fmt.Errorf("namespace %s: %w", namespace, fs.ErrNotExist)
	}
	return t.translations[namespace], nil
}

// Translate implements lb.Translator.
func (t translator) Translate(_ context.Context, wish lb.Translation) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.hasLocked(wish.Namespace) {
		return 0, fmt.Errorf("namespace %s: %w", wish.Namespace, fs.ErrNotExist)
	}
	t.translations[wish.Namespace] = wish
	return 1, nil
}

// namespaces are the machine's fabric.Namespaces. Sockets are real ones of the
// machine that the simulation runs on: 127.0.0.11 is an address there too.
type namespaces struct{ *machine }

// Create implements fabric.Namespaces.
func (n namespaces) Create(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hasLocked(path) {
		return fmt.Errorf("create namespace %s: %w", path, fs.ErrExist)
	}
	n.kernel.AddSandbox(path)
	return nil
}

// Delete implements fabric.Namespaces.
func (n namespaces) Delete(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.kernel.Namespaces()
	n.kernel.Vanish(path)
	n.dropLocked(before)
	return nil
}

// Exists implements fabric.Namespaces.
func (n namespaces) Exists(path string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return path != "" && n.hasLocked(path)
}

// Sweep implements fabric.Namespaces.
func (n namespaces) Sweep(dir string, keep func(string) bool) (removed []string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.kernel.Namespaces()
	for _, p := range before {
		if filepath.Dir(p) == dir && !keep(p) {
			n.kernel.Vanish(p)
			removed = append(removed, p)
		}
	}
	n.dropLocked(before)
	return removed, nil
}

func (n namespaces) must(path string) error {
	if !n.Exists(path) {
		return fmt.Errorf("namespace %s: %w", path, fs.ErrNotExist)
	}
	return nil
}

// Serve implements fabric.Names; nobody asks it.
func (n *names) Serve(_ context.Context, t resolver.Task) (uint16, error) {
	return namesPort, namespaces{n.machine}.must(t.Namespace)
}

// namesPort is where no name server listens.
const namesPort = 5353

// Drop implements fabric.Names.
func (n *names) Drop(context.Context, string) error { return nil }

// SetNames implements fabric.Names.
func (n *names) SetNames(_ context.Context, m zone.Model) error {
	n.zone.Store(zone.Build(m))
	return nil
}

func (n *names) addrs(networks []string, name string) []netip.Addr {
	z := n.zone.Load()
	if z == nil {
		return nil
	}
	addrs, _ := z.Addrs(networks, name)
	return addrs
}

// names is the name server of a host.
type names struct {
	machine *machine
	zone    atomic.Pointer[zone.Zone]
}

// Dial implements fabric.Namespaces: a task's program accepts as long as it runs.
func (n namespaces) Dial(ctx context.Context, path, _, address string) (net.Conn, error) {
	if err := n.must(path); err != nil {
		return nil, err
	}
	id := agent.ContainerID(filepath.Base(path)[len("task-"):])
	if st, err := n.runtime.Get(ctx, id); err != nil || st.State != runtime.Running {
		return nil, fmt.Errorf("dial %s in %s: connection refused", address, path)
	}
	near, far := net.Pipe()
	return near, far.Close()
}

// Unheard implements fabric.Namespaces: connections take no time here.
func (n namespaces) Unheard(path string) (int, error) { return 0, n.must(path) }

// flush empties a balancer behind the fabric's back.
func (m *machine) flush(namespace string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.balancer.Flush(namespace)
}

// place is a link of the machine.
type place struct{ namespace, name string }

// links lists every link that is not a loopback.
func (m *machine) links() (out []place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.kernel.Links() {
		namespace, name, _ := strings.Cut(l, " ")
		out = append(out, place{namespace, name})
	}
	return out
}

// deleteLink deletes a link behind the fabric's back; one that is gone is no error.
func (m *machine) deleteLink(l place) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kernel.Apply(context.Background(), []vxlan.Op{vxlan.DelLink{Namespace: l.namespace, Name: l.name}})
}
