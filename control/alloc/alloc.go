// Package alloc gives networks their subnets and VXLAN identifiers, services
// their virtual IPs and published ports, and tasks their addresses. What is
// given is written into those objects and nowhere else: an Allocator is an index
// of it, rebuilt from any view with Load and kept current with the Set and Drop
// methods.
//
// An address that was freed is not given again before the rest of its network
// had its turn, and never before the nodes have confirmed that they know nothing
// of its last owner (see api.Retired). An ended task holds no address. It never
// writes and has no clock of its own.
package alloc

import (
	"net/netip"
	"slices"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// The first VXLAN identifier, the last (24 bits, RFC 7348), and the published
// ports that are given to services which leave the choice open.
const (
	FirstVNI  = 4096
	LastVNI   = 1<<24 - 2 // the one after it is the nodes' own (api.ProbeVNI)
	FirstPort = 30000
	LastPort  = 32767
)

// View is what Load reads.
type View interface {
	Cluster() *api.Cluster
	Nodes() []*api.Node
	Networks() []*api.Network
	Services() []*api.Service
	Tasks() []*api.Task
	Retired() []*api.Retired
}

// Allocator knows what is given and who still waits for something. It is not
// safe for concurrent use.
type Allocator struct {
	cluster  *api.Cluster
	underlay map[string]netip.Addr
	networks map[string]*netState
	services map[string]*serviceState
	tasks    map[string]*taskState
	// retired has what is not free yet, by id.
	retired map[string]*api.Retired
	vnis    map[uint32]string
	// ports has the owner of each port given in the routing mesh, published
	// counts the services that have or wish for a port in any mode.
	ports     map[port]string
	published map[port]int
	ingress   string

	// subnets and subnets6 give the IPv4 and the IPv6 subnets of networks that do
	// not name one.
	subnets, subnets6 subnets
	// lastVNI and lastPort are where the search for the next one starts.
	lastVNI, lastPort uint32

	// todo has the ids of objects that may need something, by kind.
	todoNetworks, todoServices, todoTasks map[string]bool
	// trouble says what is wrong with networks and services, by id.
	trouble map[string]error
}

type port struct {
	protocol network.IPProtocol
	number   uint32
}

// held is an address that an object has in a network.
type held struct {
	network string
	addr    netip.Addr
}

type serviceState struct {
	*api.Service
	addrs []held
	// ports are those it owns, published those it has or wishes for.
	ports, published []port
}

type taskState struct {
	*api.Task
	addrs []held
}

// New returns an allocator that knows nothing.
func New() *Allocator {
	a := &Allocator{
		underlay: map[string]netip.Addr{}, networks: map[string]*netState{}, services: map[string]*serviceState{},
		tasks: map[string]*taskState{}, retired: map[string]*api.Retired{}, vnis: map[uint32]string{}, ports: map[port]string{}, published: map[port]int{},
		lastVNI: FirstVNI - 1, lastPort: FirstPort - 1,
		todoNetworks: map[string]bool{}, todoServices: map[string]bool{}, todoTasks: map[string]bool{},
		trouble: map[string]error{},
	}
	a.configure(nil)
	return a
}

// Load returns an allocator that knows the whole view. The search for the next
// free address goes on after the youngest that is given.
func Load(v View) *Allocator {
	a := New()
	a.SetCluster(v.Cluster())
	for _, n := range v.Nodes() {
		a.SetNode(n)
	}
	networks, services, tasks := v.Networks(), v.Services(), v.Tasks()
	networks, services, tasks = byAge(networks), byAge(services), byAge(tasks)
	for _, n := range networks {
		a.SetNetwork(n)
		a.resumeNetwork(n)
	}
	for _, s := range services {
		a.SetService(s)
		for _, h := range a.services[s.ID].addrs {
			a.net(h.network).resume(h.addr, s.CreatedAt)
		}
	}
	for _, t := range tasks {
		a.SetTask(t)
		for _, h := range attached(t) {
			a.net(h.network).resume(h.addr, t.CreatedAt)
		}
	}
	for _, r := range v.Retired() {
		a.SetRetired(r)
		for _, h := range r.Addresses {
			a.net(h.NetworkID).resume(h.Addr, r.CreatedAt)
		}
	}
	return a
}

func byAge[T api.Object](list []T) []T {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(x, y T) int {
		return x.ObjectMeta().CreatedAt.Compare(y.ObjectMeta().CreatedAt)
	})
	return sorted
}

// SetCluster tells of the cluster, whose address pool new subnets come from. It
// may be nil.
func (a *Allocator) SetCluster(c *api.Cluster) {
	a.cluster = c
	a.configure(c)
}

// SetNode tells of a new or changed node: no subnet is made around its address.
func (a *Allocator) SetNode(n *api.Node) {
	delete(a.underlay, n.ID)
	if addr, err := netip.ParseAddr(n.Status.Addr); err == nil {
		a.underlay[n.ID] = addr.Unmap()
	}
}

// DropNode tells that a node is gone.
func (a *Allocator) DropNode(id string) { delete(a.underlay, id) }

// SetService tells of a new or changed service.
func (a *Allocator) SetService(s *api.Service) {
	a.DropService(s.ID)
	state := &serviceState{Service: s}
	a.services[s.ID] = state
	for _, v := range s.Endpoint.VirtualIPs {
		if v.Addr.IsValid() {
			state.addrs = append(state.addrs, held{v.NetworkID, v.Addr.Addr()})
		}
	}
	a.take(state.addrs)
	for _, p := range s.Endpoint.Ports {
		if k := key(p); ingressPort(p) && p.PublishedPort != 0 && a.ports[k] == "" {
			a.ports[k] = s.ID
			state.ports = append(state.ports, k)
		}
	}
	state.published = published(s)
	for _, k := range state.published {
		a.published[k]++
	}
	a.todoServices[s.ID] = true
}

// published returns the ports that the service has or wishes for, in any mode.
func published(s *api.Service) []port {
	all := slices.Clone(s.Endpoint.Ports)
	if s.Spec.EndpointSpec != nil {
		all = append(all, s.Spec.EndpointSpec.Ports...)
	}
	var keys []port
	for _, p := range all {
		if p.PublishedPort != 0 && !slices.Contains(keys, key(p)) {
			keys = append(keys, key(p))
		}
	}
	return keys
}

// DropService tells that a service is gone.
func (a *Allocator) DropService(id string) {
	old := a.services[id]
	if old == nil {
		return
	}
	a.free(old.addrs)
	for _, k := range old.ports {
		delete(a.ports, k)
	}
	for _, k := range old.published {
		if a.published[k]--; a.published[k] == 0 {
			delete(a.published, k)
		}
	}
	delete(a.services, id)
	delete(a.todoServices, id)
	delete(a.trouble, id)
}

// SetTask tells of a new or changed task.
func (a *Allocator) SetTask(t *api.Task) {
	a.DropTask(t.ID)
	state := &taskState{Task: t}
	if t.Alive() {
		state.addrs = attached(t)
	}
	a.take(state.addrs)
	a.tasks[t.ID] = state
	if t.Wanted() && api.Rank(t.Status.State) < api.Rank(swarm.TaskStatePending) {
		a.todoTasks[t.ID] = true
	}
}

// DropTask tells that a task is gone.
func (a *Allocator) DropTask(id string) {
	if old := a.tasks[id]; old != nil {
		a.free(old.addrs)
		delete(a.tasks, id)
		delete(a.todoTasks, id)
	}
}

// Draft tells of a service or task that somebody plans to change, create or,
// with gone, delete. What that would free stays taken until SetService, SetTask
// or DropTask tell that it is committed: nobody may be given it before.
func (a *Allocator) Draft(o api.Object, gone bool) {
	switch o := o.(type) {
	case *api.Service:
		if s := a.services[o.ID]; s != nil {
			s.Service = o
			a.todoServices[o.ID] = true
		}
	case *api.Task:
		if !gone && o.Alive() {
			a.SetTask(o)
		} else {
			delete(a.todoTasks, o.ID)
		}
	}
}

// attached returns the addresses that are written in a task.
func attached(t *api.Task) []held {
	var addrs []held
	for i := range t.NetworksAttachments {
		at := &t.NetworksAttachments[i]
		for _, p := range at.Addresses {
			addrs = append(addrs, held{at.Network.ID, p.Addr()})
		}
	}
	return addrs
}

func (a *Allocator) take(addrs []held) {
	for _, h := range addrs {
		a.net(h.network).used[h.addr]++
	}
}

func (a *Allocator) free(addrs []held) {
	for _, h := range addrs {
		n := a.net(h.network)
		n.full = false
		if n.used[h.addr]--; n.used[h.addr] <= 0 {
			delete(n.used, h.addr)
		}
	}
}

// Plan gives what can be given to the networks and services that need it, and
// then to the new tasks, which become pending. It takes its own decisions for
// granted: when they are not committed the allocator must be loaded anew.
func (a *Allocator) Plan(now time.Time) []api.Op {
	ops := a.planNetworks()
	ops = append(ops, a.planServices()...)
	return append(ops, a.planTasks(now)...)
}

// Trouble returns what keeps networks and services from getting what they need,
// by id, as of the last Plan. Tasks carry theirs in their status.
func (a *Allocator) Trouble() map[string]error { return a.trouble }

// drain empties a set and returns what was in it, sorted.
func drain(set map[string]bool) []string {
	ids := make([]string, 0, len(set))
	for id := range set {
		ids = append(ids, id)
	}
	clear(set)
	slices.Sort(ids)
	return ids
}
