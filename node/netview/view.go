// Package netview shows the network of a node as it is: endpoints, balancer
// tables, names, forwarding entries, gossip, drift between wish and kernel, and
// the way of a packet. It only reads; netctl prints what it answers.
package netview

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/dataplane/lb"
	"shoal/node/fabric"
	"shoal/node/plan"
	"shoal/node/reconcile"
	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
	"shoal/overlay/probe"
)

// Sources are where the views come from. A node outside any cluster has none.
type Sources struct {
	NodeID string
	Fabric *fabric.Fabric
	View   func() *endpoint.View
	Gossip func() gossip.Stats
	Prober *probe.Prober
	// Networks, Services and Nodes are what the managers told this node.
	Networks map[string]*api.Network
	Services map[string]*api.Service
	Nodes    map[string]*api.Node
	Balancer lb.Driver
	// Why says why that balancer was chosen.
	Why string
	// Hides says why this node's kernel cannot let clients of published ports keep
	// their address; nil when it can.
	Hides error
	// Unsealed says why the node cannot encrypt networks, "" when it can; Keys are
	// the epochs of keys that count. Waiting lists the nodes that do not yet send
	// under the newest ones, nil where that is not known.
	Unsealed string
	Keys     api.KeyEpochs
	Waiting  func() []string
	// GossipChange is how far the cluster is with changing the gossip keys, GossipStep
	// how far this node is. GossipWaits lists the nodes that a change waits for, nil
	// where that is not known.
	GossipChange api.GossipChange
	GossipStep   func() uint64
	GossipWaits  func() []string
	// Peers asks the other nodes; nil where there is no way to them.
	Peers Peers
	// Tasks lists a service's tasks that shall run, in words, as the managers know
	// them; nil on nodes that are none.
	Tasks func(serviceID string) []string
	// Meter counts what services are used for; it outlives the sources.
	Meter *Meter
	// NetworkName names networks that the managers did not tell this node of; nil
	// where nobody here knows more.
	NetworkName func(id string) string
}

// Endpoint is one endpoint on one network.
type Endpoint struct {
	Network, Service, Task, State string
	Addrs                         []netip.Addr
	MAC, Node                     string
	VTEP                          netip.Addr
	Epoch, Seq                    uint64
	// Down says that gossip counts the node as failed.
	Down bool
}

// Balancer is what the kernel balances, namespace by namespace.
type Balancer struct {
	Driver, Why string
	// Clients says what tasks see of clients of published ports, and why.
	Clients    string
	Namespaces []Namespace
}

// Namespace is one namespace's tables.
type Namespace struct {
	// Of is whom the namespace belongs to: the node, the routing mesh, a task.
	Of string
	// Driver is the balancer there.
	Driver string `json:",omitempty"`
	lb.Desired
	Forwards []lb.Forward `json:",omitempty"`
}

// Name is one name on one network.
type Name struct {
	Network, Name string
	Addrs         []netip.Addr
}

// Drift is the difference between wish and kernel, and how the loop is doing.
type Drift struct {
	Loop        reconcile.Status
	Differences []string
}

// Healed is what somebody else changed in the kernel and this node put right.
type Healed struct {
	// Total counts changes since the daemon's start, by part of the network.
	Total map[string]uint64
	// Last are the newest, newest first.
	Last []Repair
}

// Repair is one change that was put right.
type Repair struct {
	At   time.Time
	Part string
	// In is whose namespace it was; "" where Change names it.
	In     string
	Change string
}

// Overlay is one overlay network on this node.
type Overlay struct {
	ID, Name string
	VNI      uint32
	Local    netip.Addr
	Port     uint16
	MTU      int // bytes
	// Encrypted says that the frames go through tunnels, and Blocked why the node
	// does not carry the network, "" when it does.
	Encrypted bool
	Blocked   string `json:",omitempty"`
	Subnets   []netip.Prefix
	Peers     []Peer
}

// SelfTest says that it is no network of tasks, but the one by which nodes test the
// ways between them.
func (o Overlay) SelfTest() bool { return o.ID == plan.ProbeNetwork }

// Peer is a remote endpoint: what it is, and the forwarding and neighbour entries
// that lead to it.
type Peer struct {
	Task  string
	Addrs []netip.Addr
	MAC   string
	VTEP  netip.Addr
	Node  string
}

// Endpoints lists the endpoint table.
func (s *Sources) Endpoints() []Endpoint {
	view := s.View()
	out := []Endpoint{}
	for _, r := range view.All() {
		for _, a := range r.Value.Attachments {
			e := Endpoint{
				Network: s.network(a.NetworkID), Service: r.Value.ServiceName,
				State: r.Value.State.String(), Addrs: a.Addrs, MAC: a.MAC, Node: s.node(r.Owner), VTEP: r.Value.VTEP,
				Epoch: r.Epoch, Seq: r.Seq, Down: view.Down(r.Owner),
			}
			e.Task = s.taskOf(r)
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b Endpoint) int {
		return strings.Compare(a.Network+"\x00"+a.Service+"\x00"+a.Task, b.Network+"\x00"+b.Service+"\x00"+b.Task)
	})
	return out
}

func (s *Sources) network(id string) string {
	if n := s.Networks[id]; n != nil {
		return n.Spec.Name
	}
	if s.NetworkName != nil {
		if name := s.NetworkName(id); name != "" {
			return name
		}
	}
	return id
}

func (s *Sources) node(id string) string {
	if n := s.Nodes[id]; n != nil && n.Description.Hostname != "" {
		return n.Description.Hostname
	}
	return id
}

// Balancers reads what the kernel balances.
func (s *Sources) Balancers(ctx context.Context) (Balancer, error) {
	out := Balancer{Driver: s.Balancer.Name(), Why: s.Why, Clients: s.clients()}
	wish := s.Fabric.Wish()
	names := s.places(wish)
	for _, d := range wish.Balancers {
		have, err := s.Balancer.Read(ctx, d.Namespace)
		if err != nil {
			return out, err
		}
		out.Namespaces = append(out.Namespaces, Namespace{Of: names[d.Namespace], Driver: lb.NameIn(s.Balancer, d.Namespace), Desired: named(have, d)})
	}
	for _, t := range wish.Translations {
		if len(t.Forwards) > 0 {
			out.Namespaces = append(out.Namespaces, Namespace{Of: names[t.Namespace], Forwards: t.Forwards})
		}
	}
	return out, nil
}

// places names namespaces by their paths.
func (s *Sources) places(wish plan.Output) map[string]string {
	names := map[string]string{"": "the node"}
	for _, n := range wish.Overlay.Networks {
		names[n.Namespace] = "network " + s.network(n.ID)
		if n.Balancer != nil {
			names[n.Namespace] = "the routing mesh"
		}
	}
	for _, l := range s.Fabric.Locals() {
		names[l.Namespace] = "task " + plan.TaskName(l.Task)
	}
	return names
}

// Overlays lists this node's overlay networks and their remote endpoints.
func (s *Sources) Overlays() []Overlay { return s.overlays(s.Fabric.Wish()) }

func (s *Sources) overlays(wish plan.Output) []Overlay {
	owners := map[string]endpoint.Record{}
	for _, r := range s.View().All() {
		for _, a := range r.Value.Attachments {
			owners[a.NetworkID+" "+a.MAC] = r
		}
	}
	nodes := map[netip.Addr]string{}
	for id, n := range s.Nodes {
		nodes[n.DataPathAddr.Unmap()] = s.node(id)
	}
	out := []Overlay{}
	for _, n := range wish.Overlay.Networks {
		o := Overlay{ID: n.ID, Name: s.network(n.ID), VNI: n.VNI, Local: n.Local, Port: n.Port, MTU: n.MTU, Subnets: n.Subnets, Encrypted: n.Underlay != ""}
		for _, p := range n.Peers {
			peer := Peer{Addrs: p.Addrs, MAC: p.MAC, VTEP: p.VTEP, Node: nodes[p.VTEP]}
			if r, known := owners[n.ID+" "+p.MAC]; known {
				peer.Task, peer.Node = s.taskOf(r), s.node(r.Owner)
			}
			o.Peers = append(o.Peers, peer)
		}
		out = append(out, o)
	}
	for _, id := range slices.Sorted(maps.Keys(wish.Blocked)) {
		out = append(out, Overlay{ID: id, Name: s.network(id), Encrypted: true, Blocked: wish.Blocked[id]})
	}
	return out
}

// taskOf names what a record is of.
func (s *Sources) taskOf(r endpoint.Record) string {
	if r.Key == endpoint.NodeKey {
		return "(routing mesh of " + s.node(r.Owner) + ")"
	}
	return r.Value.TaskName
}

// Healed lists what was put right lately.
func (s *Sources) Healed() Healed {
	last, total := s.Fabric.Repairs()
	names := s.places(s.Fabric.Wish())
	out := Healed{Total: map[string]uint64{}, Last: []Repair{}}
	for part, n := range total {
		out.Total[string(part)] = n
	}
	for _, r := range last {
		in := ""
		if r.Part != fabric.PartOverlay {
			in = cmp.Or(names[r.Namespace], r.Namespace)
		}
		out.Last = append(out.Last, Repair{At: r.At, Part: string(r.Part), In: in, Change: r.Change})
	}
	return out
}

// clients says whether clients of published ports keep their address.
func (s *Sources) clients() string {
	if s.Hides != nil {
		return "hidden behind the entry node: " + s.Hides.Error()
	}
	for _, r := range s.View().All() {
		if r.Key == endpoint.NodeKey && r.Value.HidesClients {
			return "hidden behind the entry node: the kernel of node " + s.node(r.Owner) + " cannot lead replies back to it"
		}
	}
	return "keep their address, replies return by the entry node"
}

// named gives what the kernel has the names that only the wish knows.
func named(have, wish lb.Desired) lb.Desired {
	services := map[lb.Front]string{}
	tasks := map[netip.Addr]string{}
	for _, s := range wish.Services {
		services[s.Front] = s.Name
		for _, b := range s.Backends {
			tasks[b.Addr] = b.Task
		}
	}
	have.Services = slices.Clone(have.Services)
	for i := range have.Services {
		s := &have.Services[i]
		s.Name = services[s.Front]
		s.Backends = slices.Clone(s.Backends)
		for j := range s.Backends {
			s.Backends[j].Task = tasks[s.Backends[j].Addr]
		}
	}
	return have
}

// Mount adds the views to a router; sources returns nil outside a cluster.
func Mount(rt *wire.Router, sources func() *Sources) {
	view := func(path string, show func(r *http.Request, s *Sources) (any, error)) {
		rt.Handle(http.MethodGet, "/shoal/"+path, func(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
			s := sources()
			if s == nil {
				return api.Errorf(api.Unavailable, "this node is in no cluster, so it has no network to show")
			}
			other, err := s.elsewhere(r.URL.Query())
			if err != nil {
				return err
			}
			if other != "" {
				return s.relay(w, r, other)
			}
			out, err := show(r, s)
			if err != nil {
				return err
			}
			return wire.WriteJSON(w, http.StatusOK, out)
		})
	}
	mountWatch(rt, sources)
	view("endpoints", func(_ *http.Request, s *Sources) (any, error) { return s.Endpoints(), nil })
	view("lb", func(r *http.Request, s *Sources) (any, error) { return s.Balancers(r.Context()) })
	view("dns", func(_ *http.Request, s *Sources) (any, error) { return s.Names(), nil })
	view("overlay", func(_ *http.Request, s *Sources) (any, error) { return s.Overlays(), nil })
	view("datapath", func(r *http.Request, s *Sources) (any, error) {
		return s.DataPath(r.Context(), r.URL.Query().Has("test"))
	})
	view("tunnels", func(r *http.Request, s *Sources) (any, error) { return s.Tunnels(r.Context()) })
	view("gossip", func(_ *http.Request, s *Sources) (any, error) { return s.GossipTables(), nil })
	view("drift", func(r *http.Request, s *Sources) (any, error) {
		differences, err := s.Fabric.Drift(r.Context())
		return Drift{Loop: s.Fabric.Status(), Differences: differences}, err
	})
	view("top", func(r *http.Request, s *Sources) (any, error) { return s.Top(r.Context(), r.URL.Query()) })
	view("healed", func(_ *http.Request, s *Sources) (any, error) { return s.Healed(), nil })
	view("trace", func(r *http.Request, s *Sources) (any, error) { return s.Trace(r.Context(), r.URL.Query()) })
	view("tasks", func(r *http.Request, s *Sources) (any, error) {
		return s.tasks(r.Context(), r.URL.Query().Get("service")), nil
	})
	view("part", func(_ *http.Request, s *Sources) (any, error) { return s.part() })
}
