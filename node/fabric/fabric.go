// Package fabric keeps a node's network equal to what plan wishes: it gathers
// the assignments, the local tasks and the endpoint records, compiles them, and
// hands the result to the owners of links, balancers, translations and names.
// It owns the tasks' namespaces. One loop does
// all of it, so that nothing is ever half of one wish and half of another.
//
// It decides nothing that plan can decide, and talks to kernels only through
// the interfaces it declares.
package fabric

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/dns/server"
	"shoal/node/plan"
	"shoal/node/reconcile"
	"shoal/node/resolver"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
	"shoal/overlay/wireguard"
)

// Overlay reads and changes links, addresses, routes and forwarding entries.
type Overlay interface {
	// Read returns what the kernel has of ours, wherever desired looks.
	// A namespace that it cannot read is among Actual.Unread.
	Read(ctx context.Context, desired vxlan.Desired) (vxlan.Actual, error)
	// ReadPeers returns the tunnel of a network with its entries and looks at
	// nothing else; false where there is no such link.
	ReadPeers(ctx context.Context, n vxlan.Network) (vxlan.Link, bool, error)
	// Apply carries the operations out. One that fails keeps only those that build
	// on it from being tried, and is a *vxlan.OpError in what is returned.
	Apply(ctx context.Context, ops []vxlan.Op) error
}

// Vault reads and changes the namespace of encrypted networks' sockets.
type Vault interface {
	Read(ctx context.Context) (wireguard.Actual, error)
	Apply(ctx context.Context, ops []wireguard.Op) error
}

// Config of a Fabric; every field is needed but Vault, Tunnels, Findings, Troubles, Applied,
// Programmed, Revision with Reached, MTUs, Addrs, BridgesFiltered, Namespaces, Questions and Resync.
type Config struct {
	Dir     string // the fabric's own directory
	Self    plan.Self
	Overlay Overlay
	// Vault is nil on a node that cannot encrypt; Tunnels says why, or with which
	// keys it does (nil: it cannot). Live is the fabric's to fill in.
	Vault      Vault
	Tunnels    func() plan.Tunnels
	Balancer   lb.Driver
	Translator lb.Translator
	// Namespaces are the kernel's when nil.
	Namespaces Namespaces
	Names      Names
	// Questions says how a task's questions are answered, apart from its
	// networks; nil is as on a machine that nobody has set anything for.
	Questions func(t *api.Task) server.Task
	// Assigned returns the networks, services and nodes the managers told of.
	Assigned func() ([]*api.Network, []*api.Service, []*api.Node)
	// MTUs returns the MTUs, in bytes, of the data path's link and of the way to
	// the outside, which follow the machine's; those of Self stay when nil.
	MTUs func() (path, egress int, err error)
	// Addrs returns the node's own addresses by link; without it, ports that are
	// published at chosen places are published nowhere.
	Addrs func() (map[string][]netip.Addr, error)
	// BridgesFiltered says whether frames on the machine's bridges pass its IP
	// filters; as in Self when nil.
	BridgesFiltered func() (bool, error)
	// View returns the endpoint table as it is now.
	View func() *endpoint.View
	// Findings is told, with every wish, what of it the balancer cannot do.
	Findings func(messages []string)
	// Troubles is told the places in which the kernel goes on refusing what is wished,
	// in words, when they change.
	Troubles func(messages []string)
	// Applied is called when the kernel is equal to the view, but for what concerns
	// the networks in held, where it may follow an older one; "" among them stands
	// for the ports of the node that lead to its own tasks.
	Applied func(v *endpoint.View, held ...string)
	// Programmed, if not nil, is told how long a change of the wish took from the
	// moment this node heard of it until its kernel had it.
	Programmed func(took time.Duration)
	// Revision returns that of the assignments, none older than it says; Reached
	// is called when the kernel is what they ask for, but for what concerns the networks
	// in held: by id, or by the name of its namespace one that is not wished any more.
	Revision func() uint64
	Reached  func(revision uint64, held ...string)
	Logger   *slog.Logger
	// Resync is how often the kernel is read although nothing changed (2 s).
	Resync time.Duration
}

// Fabric is one node's network.
type Fabric struct {
	cfg       Config
	loop      *reconcile.Loop
	addresses *addresses

	mu     sync.Mutex
	locals map[string]*local

	// stepping is held while a step runs, and while a namespace is taken away: a
	// step that still knew it would make it again.
	stepping sync.Mutex

	// The step's own: what is in the kernel, when all of it was last compared, and in
	// how many steps in a row each place failed.
	known    known
	fullSync time.Time
	failing  map[string]int
	// unmeasured says that the machine's own links could not be looked at.
	unmeasured bool
	live       map[string]map[wireguard.Key]bool
	heard      *wireguard.Actual // the vault as the step found it, nil when it did not look
	moved      bool              // the last step had another wish than the one before
	current    snapshot
	healed     repairs
}

// local is a task with a namespace.
type local struct {
	plan.Local
	// asked is how the task's name server was last asked to answer.
	asked resolver.Task
}

// snapshot is the last wish that was compiled, for those who look.
type snapshot struct {
	sync.Mutex
	out     plan.Output
	trouble error // with the vault
}

// New returns a Fabric; Run makes it work.
func New(cfg Config) (*Fabric, error) {
	if cfg.Resync == 0 {
		cfg.Resync = 2 * time.Second
	}
	if cfg.Namespaces == nil {
		cfg.Namespaces = kernelNamespaces{}
	}
	if cfg.Tunnels == nil {
		cfg.Tunnels = func() plan.Tunnels { return plan.Tunnels{Missing: "it has no tunnels"} }
	}
	a, err := loadAddresses(filepath.Join(cfg.Dir, "gateway.json"))
	if err != nil {
		return nil, err
	}
	f := &Fabric{cfg: cfg, addresses: a, locals: map[string]*local{}, known: newKnown(), failing: map[string]int{}}
	f.loop = reconcile.New(reconcile.Config{Name: "network", Step: f.step, Resync: cfg.Resync, Settled: f.settled})
	return f, nil
}

// Run keeps the network right until ctx ends. What is in the kernel stays, and so
// do the name servers.
func (f *Fabric) Run(ctx context.Context) { f.loop.Run(ctx) }

// Trigger says that assignments or records have changed.
func (f *Fabric) Trigger() { f.loop.Trigger() }

// Status returns how the loop is doing.
func (f *Fabric) Status() reconcile.Status { return f.loop.Status() }

// NamespacePath is where a task's namespace is mounted.
func (f *Fabric) NamespacePath(taskID string) string {
	return filepath.Join(f.cfg.Self.NamespaceDir, "task-"+taskID)
}

// Adopt makes the task part of the wish, with a namespace that is there or a new
// one. It waits for nothing: a task that is wired already stays as it is. One in the
// node's own network has no part in it.
func (f *Fabric) Adopt(t *api.Task) error {
	if t.OnHost() {
		return nil
	}
	path := f.NamespacePath(t.ID)
	if err := f.cfg.Self.Wires(t); err != nil {
		return err
	}
	if !f.cfg.Namespaces.Exists(path) {
		if err := f.cfg.Namespaces.Create(path); err != nil {
			return err
		}
	}
	l := &local{Local: plan.Local{Task: t, Namespace: path}}
	if needsGateway(t) {
		addr, err := f.addresses.take(t.ID)
		if err != nil {
			return err
		}
		l.Gateway = addr
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.locals[t.ID]; old != nil {
		l.asked, l.DNSPort, l.Live = old.asked, old.DNSPort, old.Live
	}
	f.locals[t.ID] = l
	return nil
}

// Attach makes the task's namespace, wires it and waits until it is right, with
// the namespaces of its networks and the node's own. Trouble in others is not the
// task's. For one in the node's own network there is nothing to do and no path.
func (f *Fabric) Attach(ctx context.Context, t *api.Task) (string, error) {
	if t.OnHost() {
		return "", nil
	}
	path := f.NamespacePath(t.ID)
	if err := f.Adopt(t); err != nil {
		return "", err
	}
	places := []string{path, ""}
	for _, a := range t.NetworksAttachments {
		places = append(places, f.cfg.Self.NamespacePath(a.Network.ID))
	}
	if err := f.loop.WaitFor(ctx, f.loop.Trigger(), func(err error) bool { return !concerns(err, places) }); err != nil {
		return path, err
	}
	return path, f.awaitCarried(ctx, t)
}

// needsGateway says whether the task has a leg on the gateway bridge: every task
// but those that are to have no network, and those whose networks are all internal,
// and those too when a port of the node leads to them.
func needsGateway(t *api.Task) bool {
	if t.OnNone() {
		return false
	}
	internal := 0
	for _, a := range t.NetworksAttachments {
		switch {
		case a.Network.Spec.Ingress:
		case a.Network.Spec.Internal:
			internal++
		default:
			return true
		}
	}
	return internal == 0 || slices.ContainsFunc(t.Ports, func(p swarm.PortConfig) bool {
		return p.PublishMode == swarm.PortConfigPublishModeHost
	})
}

// Self returns the node as the network is planned for it.
func (f *Fabric) Self() plan.Self {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cfg.Self
}

// FillChecksums makes the kernel fill in the checksums of tunnelled packets, from
// now on and in later runs, until the node's namespaces are gone.
func (f *Fabric) FillChecksums() {
	f.mu.Lock()
	f.cfg.Self.SoftwareChecksums = true
	f.mu.Unlock()
	f.loop.Trigger()
}

// remember takes up from the kernel that an earlier run had it fill in checksums.
func (f *Fabric) remember(actual vxlan.Actual) {
	link := actual.Namespaces[f.cfg.Self.ProbeNamespace()].Links[vxlan.TunnelName(api.ProbeVNI)]
	if link.SoftwareChecksums && !f.Self().SoftwareChecksums {
		f.FillChecksums()
	}
}

// SetLive says whether the task takes what is sent to it.
func (f *Fabric) SetLive(taskID string, live bool) {
	f.mu.Lock()
	l := f.locals[taskID]
	changed := l != nil && l.Live != live
	if changed {
		l.Live = live
	}
	f.mu.Unlock()
	if changed {
		f.loop.Trigger()
	}
}

// Detach takes the task's name server, its namespace and its gateway address away.
func (f *Fabric) Detach(ctx context.Context, taskID string) error {
	f.stepping.Lock()
	defer f.stepping.Unlock()
	f.mu.Lock()
	delete(f.locals, taskID)
	f.mu.Unlock()
	if err := f.cfg.Names.Drop(ctx, taskID); err != nil {
		// It lets go by itself once the namespace is gone.
		f.cfg.Logger.Warn("a task's name server is not closed at once", "task", taskID, "error", err)
	}
	f.known.forget(f.NamespacePath(taskID)) // another one may come in its place
	if err := f.cfg.Namespaces.Delete(f.NamespacePath(taskID)); err != nil {
		return err
	}
	f.loop.Trigger()
	return f.addresses.free(taskID)
}

// Accepts says whether something in the task's namespace accepts connections on
// all of the TCP ports.
func (f *Fabric) Accepts(ctx context.Context, t *api.Task, ports []uint16) bool {
	if t.OnHost() {
		return f.acceptsOnHost(ctx, ports)
	}
	for _, port := range ports {
		if !f.dials(ctx, f.NamespacePath(t.ID), netip.AddrPortFrom(listenAddr(t), port)) {
			return false
		}
	}
	return true
}

// Unheard says how many clients have connected to the task of whom its program has
// read nothing yet.
func (f *Fabric) Unheard(taskID string) (int, error) {
	return f.cfg.Namespaces.Unheard(f.NamespacePath(taskID))
}

// listenAddr is where a task is asked whether it listens: its last IPv4 address,
// for a process may listen on some of its addresses only, and hardly on IPv6
// alone; its last one of IPv6 where it has no other.
func listenAddr(t *api.Task) netip.Addr {
	var four, six netip.Addr
	for _, a := range t.NetworksAttachments {
		for _, p := range a.Addresses {
			if p.Addr().Is4() {
				four = p.Addr()
			} else {
				six = p.Addr()
			}
		}
	}
	switch {
	case four.IsValid():
		return four
	case six.IsValid():
		return six
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// input gathers what the plan depends on.
func (f *Fabric) input(v *endpoint.View) plan.Input {
	networks, services, nodes := f.cfg.Assigned()
	f.mu.Lock()
	defer f.mu.Unlock()
	in := plan.Input{
		Self: f.cfg.Self, Networks: networks, Services: services, Nodes: nodes,
		Records: v.All(), Silent: map[string]bool{}, Tunnels: f.cfg.Tunnels(),
	}
	in.Tunnels.Live = f.live
	for _, owner := range v.Owners() {
		in.Silent[owner] = v.Down(owner)
	}
	for _, id := range slices.Sorted(maps.Keys(f.locals)) {
		in.Local = append(in.Local, f.locals[id].Local)
	}
	return in
}

// Wish returns what the network should be, as compiled last.
func (f *Fabric) Wish() plan.Output {
	f.current.Lock()
	defer f.current.Unlock()
	return f.current.out
}

// Locals returns the tasks with a namespace here, by id.
func (f *Fabric) Locals() []plan.Local {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []plan.Local
	for _, id := range slices.Sorted(maps.Keys(f.locals)) {
		out = append(out, f.locals[id].Local)
	}
	return out
}
