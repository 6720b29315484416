// Package plan decides what a node's kernel and name server should hold: from
// who the node is, what the managers assigned to it, which local tasks have a
// namespace and what the endpoint table says, it computes the overlay, the
// balancers, the translations and the names. It is the one place that turns
// control's nouns into the models of the network rooms.
//
// Compile is pure: it reads no clock and touches no kernel.
package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/dns/zone"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
	"shoal/overlay/wireguard"
)

// Input is everything the decision depends on.
type Input struct {
	Self     Self
	Networks []*api.Network
	Services []*api.Service
	Nodes    []*api.Node
	Local    []Local
	// Records are all live endpoint records, the node's own among them.
	Records []endpoint.Record
	// Silent are the owners that gossip counts as failed.
	Silent map[string]bool
	// Tunnels is what encrypted networks need.
	Tunnels Tunnels
}

// Self is the node that is planned for.
type Self struct {
	ID     string
	Number uint32
	// VTEP is the node's data path address, Port its VXLAN port, MTU what the
	// data path's link may carry, in bytes.
	VTEP netip.Addr
	Port uint16
	MTU  int
	// Probes says that the node tests the data path, and needs a network for it.
	Probes bool
	// SoftwareChecksums says that the node's network card spoils the checksums
	// of tunnelled packets.
	SoftwareChecksums bool
	// Addrs are the node's own addresses by link; they are needed only where some
	// port is published at chosen places.
	Addrs map[string][]netip.Addr
	// NamespaceDir holds the overlay namespaces.
	NamespaceDir string
	// GatewayMTU is the MTU of the gateway bridge, in bytes.
	GatewayMTU int
	// BridgesFiltered says that frames on the machine's bridges pass its IP filters.
	BridgesFiltered bool
	// HidesClients says that the node's kernel cannot carry out a return path.
	HidesClients bool
	// NoIPv6 says why the node's tasks have no IPv6 at all, NoIPv6Outside why they
	// have none but inside of their networks: the node's own namespace carries
	// none. Both are "" where nothing is in the way.
	NoIPv6, NoIPv6Outside string
}

// Local is a task of this node that has a network namespace.
type Local struct {
	Task      *api.Task
	Namespace string
	// Gateway is the task's address on the gateway bridge, invalid for a task
	// that has no leg there.
	Gateway netip.Prefix
	// DNSPort is where the task's name server listens on 127.0.0.11, 0 for none.
	DNSPort uint16
	// Live says that the task's process runs and takes what is sent to it.
	Live bool
}

// Output is the whole wish for the node.
type Output struct {
	Overlay      vxlan.Desired
	Balancers    []lb.Desired
	Translations []lb.Translation
	Zone         zone.Model
	// Vault is where encrypted networks' sockets are; Settled is the epoch of keys
	// under which the node sends to every node that it has heard.
	Vault   wireguard.Desired
	Settled uint64
	// Blocked says, by network, why the node does not carry it.
	Blocked map[string]string
}

// Compile turns the input into the wish. Equal inputs give equal outputs,
// whatever the order of their lists.
func Compile(in Input) Output {
	c := newCompiler(in)
	out := Output{
		Overlay:      c.overlay(),
		Balancers:    c.balancers(),
		Translations: c.translations(),
		Zone:         c.zone(),
		Blocked:      c.blocked,
	}
	out.Vault, out.Settled = c.vault()
	return out
}

// compiler holds the input sorted and indexed.
type compiler struct {
	in       Input
	networks map[string]*api.Network
	nodes    map[string]*api.Node
	policies map[string]api.Policy // of services, by id, as they are asked for
	used     []*api.Network        // the networks this node takes part in, by id
	ingress  *api.Network
	dead     map[string]bool // other owners that managers count as down
	mesh     []publication   // the ports of the routing mesh
	hides    bool            // some node needs clients of published ports masqueraded
	others   []*api.Node     // the other nodes, by number
	numbers  map[string]uint32
	sealed   []*api.Network // the used networks that are encrypted
	blocked  map[string]string

	remote   map[string][]spot // other nodes' records, by network
	spots    map[place][]spot  // the records of owners that are not dead
	starting map[place][]spot  // those of tasks that nobody is sent to yet
	alone    map[string][]spot // the records of containers that are no service's, by network
	attached map[string][]attached
	fronts   map[string][]front
}

// attached is a service whose tasks are on a network.
type attached struct {
	service *api.Service
	aliases []string
}

// front is a service's virtual IP on a network.
type front struct {
	service *api.Service
	addr    netip.Addr
}

func newCompiler(in Input) *compiler {
	if in.Self.NoIPv6 != "" {
		in = withoutIPv6(in)
	}
	c := &compiler{
		in: in, networks: map[string]*api.Network{}, nodes: map[string]*api.Node{}, policies: map[string]api.Policy{}, dead: map[string]bool{}, remote: map[string][]spot{},
		spots: map[place][]spot{}, starting: map[place][]spot{}, alone: map[string][]spot{}, attached: map[string][]attached{}, fronts: map[string][]front{},
		numbers: map[string]uint32{}, blocked: map[string]string{},
	}
	for _, n := range in.Networks {
		c.networks[n.ID] = n
		if n.Spec.Ingress && !n.Removed {
			c.ingress = n
		}
	}
	for _, n := range in.Nodes {
		c.nodes[n.ID] = n
		if n.Status.State == "down" && n.ID != in.Self.ID { // the node itself knows better
			c.dead[n.ID] = true
		}
	}
	c.indexNodes()
	c.in.Local = slices.Clone(in.Local)
	slices.SortFunc(c.in.Local, func(a, b Local) int { return cmp.Compare(a.Task.ID, b.Task.ID) })
	c.hides = in.Self.HidesClients
	for _, r := range in.Records {
		c.hides = c.hides || r.Key == endpoint.NodeKey && r.Value.HidesClients && !c.dead[r.Owner] && !c.stranger(r.Owner)
	}
	c.in.Services = sortServices(in.Services)
	c.index(in.Records)
	c.indexServices()
	c.mesh = c.published()
	c.findUsed()
	return c
}

// findUsed lists the networks that need a namespace here: those of local tasks,
// and the ingress network, which is ready before the first port is published.
func (c *compiler) findUsed() {
	used := map[string]bool{}
	for _, l := range c.in.Local {
		for _, a := range l.Task.NetworksAttachments {
			used[a.Network.ID] = true
		}
	}
	if c.ingress != nil {
		used[c.ingress.ID] = true
	}
	for id := range used {
		if n := c.networks[id]; n != nil && n.VNI != 0 && !c.block(n) {
			c.used = append(c.used, n)
		}
	}
	slices.SortFunc(c.sealed, func(a, b *api.Network) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(c.used, func(a, b *api.Network) int { return cmp.Compare(a.ID, b.ID) })
}
