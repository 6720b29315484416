package netview

import (
	"cmp"
	"net/netip"
	"slices"

	"shoal/dataplane/lb"
	"shoal/dataplane/trace"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
)

// observed is what only the kernel of this node can tell.
type observed struct {
	// addrs are the node's own addresses, by link.
	addrs map[string][]netip.Prefix
	// routes are those of the node's main table, the best first.
	routes []trace.Route
	// listens are the listening ports by namespace; a namespace that could not be
	// read is missing.
	listens map[string][]trace.Listen
}

// world describes the cluster as this node sees it: itself in full, nodes that
// were asked as they answered, the others by their endpoints and by the routing
// mesh, which is the same on every node.
func (s *Sources) world(o observed, parts map[string]Part) trace.World {
	b := s.builder(o)
	b.self()
	for _, owner := range s.View().Owners() {
		part, asked := parts[owner]
		switch {
		case asked:
			b.w.Namespaces = append(b.w.Namespaces, part.Namespaces...)
			b.w.Networks = append(b.w.Networks, part.Networks...)
		case owner != s.NodeID:
			b.other(owner)
		}
	}
	return b.w
}

func (s *Sources) builder(o observed) *worldBuilder {
	b := &worldBuilder{s: s, o: o, wish: s.Fabric.Wish(), records: s.View().All(), balance: map[string]lb.Desired{}, translation: map[string]lb.Translation{}}
	for _, d := range b.wish.Balancers {
		b.balance[d.Namespace] = d
	}
	for _, t := range b.wish.Translations {
		b.translation[t.Namespace] = t
	}
	return b
}

type worldBuilder struct {
	s           *Sources
	o           observed
	wish        plan.Output
	records     []endpoint.Record
	balance     map[string]lb.Desired
	translation map[string]lb.Translation
	w           trace.World
}

// meshPath stands for the namespace of the routing mesh on nodes other than this.
const meshPath = "mesh"

// self adds this node's own namespaces and networks.
func (b *worldBuilder) self() {
	name := b.s.node(b.s.NodeID)
	host := trace.Namespace{Node: name, Routes: b.o.routes, Translation: b.translation[""], Listens: b.o.listens[""]}
	for _, link := range mapKeys(b.o.addrs) {
		host.Interfaces = append(host.Interfaces, trace.Interface{Name: link, Addrs: b.o.addrs[link]})
	}
	b.joinMesh(&host, b.ingressNamespace())
	b.w.Namespaces = append(b.w.Namespaces, host)
	for _, n := range b.wish.Overlay.Networks {
		b.addNetwork(name, n)
	}
	for _, sb := range b.wish.Overlay.Sandboxes {
		b.addSandbox(name, sb)
	}
}

func (b *worldBuilder) ingressNamespace() string {
	for _, n := range b.wish.Overlay.Networks {
		if n.Balancer != nil {
			return n.Namespace
		}
	}
	return ""
}

// joinMesh gives a host the link to its routing mesh, if there is one.
func (b *worldBuilder) joinMesh(host *trace.Namespace, path string) {
	for _, n := range b.wish.Overlay.Networks {
		if n.Balancer != nil && path != "" {
			host.Interfaces = append(host.Interfaces, trace.Interface{
				Name: "mesh", Addrs: n.Balancer.HostAddrs, Peer: path, HasPeer: true,
			})
		}
	}
}

// meshNamespace is the routing mesh's namespace on some node.
func (b *worldBuilder) meshNamespace(node, path string, n vxlan.Network, own []netip.Prefix) trace.Namespace {
	ns := trace.Namespace{
		Node: node, Path: path, Name: "routing mesh", Balance: b.balance[n.Namespace], Balancer: lb.NameIn(b.s.Balancer, n.Namespace), Listens: []trace.Listen{},
		Interfaces: []trace.Interface{
			{Name: "br0", Addrs: own, Network: n.ID},
			{Name: "lb0", Addrs: n.Balancer.PeerAddrs, Peer: "", HasPeer: true},
		},
	}
	for _, host := range n.Balancer.HostAddrs {
		ns.Routes = append(ns.Routes, trace.Route{Dest: defaultOf(host.Addr()), Link: "lb0", Via: host.Addr()})
	}
	for _, subnet := range n.Subnets {
		ns.Routes = append(ns.Routes, trace.Route{Dest: subnet, Link: "br0"})
	}
	return ns
}

// The destinations of default routes.
var (
	everywhere4 = netip.MustParsePrefix("0.0.0.0/0")
	everywhere6 = netip.MustParsePrefix("::/0")
)

// defaultOf is the destination of a default route of the address's family.
func defaultOf(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return everywhere4
	}
	return everywhere6
}

// addNetwork adds one of this node's overlay networks and its entries.
func (b *worldBuilder) addNetwork(node string, n vxlan.Network) {
	t := trace.Network{ID: n.ID, Name: b.s.network(n.ID), Node: node, VNI: n.VNI}
	vteps := map[netip.Addr]string{}
	for _, r := range b.records {
		vteps[r.Value.VTEP] = b.s.node(r.Owner)
	}
	for _, p := range n.Peers {
		for _, a := range p.Addrs {
			t.Peers = append(t.Peers, trace.Peer{Addr: a, MAC: p.MAC, VTEP: p.VTEP, VTEPNode: vteps[p.VTEP]})
		}
	}
	b.w.Networks = append(b.w.Networks, t)
	if n.Balancer != nil {
		b.w.Namespaces = append(b.w.Namespaces, b.meshNamespace(node, n.Namespace, n, n.Balancer.Addrs))
	}
}

// addSandbox adds one of this node's tasks.
func (b *worldBuilder) addSandbox(node string, sb vxlan.Sandbox) {
	ns := trace.Namespace{
		Node: node, Path: sb.Namespace, Name: b.taskName(sb.ID), Balance: b.balance[sb.Namespace], Balancer: lb.NameIn(b.s.Balancer, sb.Namespace),
		Translation: b.translation[sb.Namespace], Listens: b.o.listens[sb.Namespace],
	}
	for _, i := range sb.Interfaces {
		ns.Interfaces = append(ns.Interfaces, trace.Interface{Name: i.Name, Addrs: i.Addrs, Network: i.NetworkID})
	}
	for _, r := range sb.Routes {
		if r.Table != 0 {
			continue // for replies only
		}
		ns.Routes = append(ns.Routes, trace.Route{Dest: r.Dst, Link: r.Interface, Via: r.Via})
	}
	b.w.Namespaces = append(b.w.Namespaces, ns)
}

func (b *worldBuilder) taskName(id string) string {
	for _, l := range b.s.Fabric.Locals() {
		if l.Task.ID == id {
			return plan.TaskName(l.Task)
		}
	}
	return id
}

// other adds another node: its tasks where their endpoints are, its entries for
// everyone else's, its own address and its routing mesh.
func (b *worldBuilder) other(owner string) {
	node := b.s.node(owner)
	host := trace.Namespace{Node: node, Translation: lb.Translation{Forwards: b.meshForwards()}}
	for _, n := range b.wish.Overlay.Networks {
		t := trace.Network{ID: n.ID, Name: b.s.network(n.ID), Node: node, VNI: n.VNI}
		for _, r := range b.records {
			for _, a := range r.Value.Attachments {
				if a.NetworkID != n.ID {
					continue
				}
				if r.Owner == owner {
					b.place(node, r, a, n)
				} else {
					for _, addr := range a.Addrs {
						t.Peers = append(t.Peers, trace.Peer{Addr: addr, MAC: a.MAC, VTEP: r.Value.VTEP, VTEPNode: b.s.node(r.Owner)})
					}
				}
			}
			if r.Owner == owner && len(host.Interfaces) == 0 {
				host.Interfaces = []trace.Interface{{Name: "underlay", Addrs: []netip.Prefix{netip.PrefixFrom(r.Value.VTEP, r.Value.VTEP.BitLen())}}}
			}
		}
		b.w.Networks = append(b.w.Networks, t)
	}
	b.joinMesh(&host, meshPath)
	b.w.Namespaces = append(b.w.Namespaces, host)
}

// place adds what answers at another node's endpoint.
func (b *worldBuilder) place(node string, r endpoint.Record, a endpoint.Attachment, n vxlan.Network) {
	var own []netip.Prefix
	for _, addr := range a.Addrs {
		own = append(own, netip.PrefixFrom(addr, subnetBits(n, addr)))
	}
	if r.Key == endpoint.NodeKey {
		if n.Balancer != nil {
			b.w.Namespaces = append(b.w.Namespaces, b.meshNamespace(node, meshPath, n, own))
		}
		return
	}
	b.w.Namespaces = append(b.w.Namespaces, trace.Namespace{
		Node: node, Path: r.Key + "/" + n.ID, Name: r.Value.TaskName,
		Interfaces: []trace.Interface{{Name: "eth0", Addrs: own, Network: n.ID}},
	})
}

func subnetBits(n vxlan.Network, a netip.Addr) int {
	for _, s := range n.Subnets {
		if s.Contains(a) {
			return s.Bits()
		}
	}
	return a.BitLen()
}

// meshForwards are the host's forwards into the routing mesh, which every node has.
func (b *worldBuilder) meshForwards() []lb.Forward {
	var out []lb.Forward
	for _, f := range b.translation[""].Forwards {
		for _, n := range b.wish.Overlay.Networks {
			if n.Balancer != nil && slices.ContainsFunc(n.Balancer.PeerAddrs, func(p netip.Prefix) bool { return p.Addr() == f.To.Addr() }) {
				out = append(out, f)
			}
		}
	}
	slices.SortFunc(out, func(x, y lb.Forward) int { return cmp.Compare(x.Port, y.Port) })
	return out
}
