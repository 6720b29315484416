package plan

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/lb"
)

// publication is one port of the routing mesh.
type publication struct {
	service *api.Service
	port    swarm.PortConfig
}

// published lists the ports of the routing mesh, by service name.
func (c *compiler) published() []publication {
	var out []publication
	for _, s := range c.in.Services {
		for _, p := range s.Endpoint.Ports {
			if p.PublishMode != swarm.PortConfigPublishModeHost && p.PublishedPort != 0 {
				out = append(out, publication{s, p})
			}
		}
	}
	return out
}

// balancers gives every local task the virtual IPs of its networks in its own
// namespace, and the ingress namespace the published ports. Tasks on the same
// networks share the same list, which nobody may change.
func (c *compiler) balancers() []lb.Desired {
	var out []lb.Desired
	virtual := map[string][]lb.Service{}
	for _, n := range c.used {
		if n == c.ingress {
			out = append(out, c.meshBalancer())
			continue
		}
		virtual[n.ID] = c.virtualIPs(n.ID)
	}
	for _, l := range c.in.Local {
		d := lb.Desired{Namespace: l.Namespace}
		for _, a := range l.Task.NetworksAttachments {
			if d.Services == nil {
				d.Services = slices.Clip(virtual[a.Network.ID])
				continue
			}
			d.Services = append(d.Services, virtual[a.Network.ID]...)
		}
		out = append(out, d)
	}
	return out
}

// meshBalancer is the routing mesh of this node: what the host sends to the
// ingress namespace is spread over the tasks' ingress addresses.
func (c *compiler) meshBalancer() lb.Desired {
	d := lb.Desired{Namespace: c.in.Self.NamespacePath(c.ingress.ID), MasqueradeFrom: c.masqueradeFrom()}
	for _, p := range c.mesh {
		for _, peer := range c.meshPeers() {
			at := lb.Front{Addr: peer, Port: uint16(p.port.PublishedPort), Protocol: lb.Protocol(p.port.Protocol)}
			s := c.balanced(p.service, at, c.ingress.ID, uint16(p.port.TargetPort))
			s.Masquerade = c.policy(p.service).HideClients
			d.Services = append(d.Services, s)
		}
	}
	return d
}

// mesh6 says whether this node takes connections to published ports over IPv6.
func (c *compiler) mesh6() bool { return has6(c.ingress) && c.in.Self.routes6() }

// meshPeers are the addresses that the host sends published ports to, one for
// each family of the mesh.
func (c *compiler) meshPeers() (out []netip.Addr) {
	if has4(c.ingress) {
		out = append(out, meshPeer.Addr())
	}
	if c.mesh6() {
		out = append(out, meshPeer6.Addr())
	}
	return out
}

// masqueradeFrom lists the clients of published ports that must be hidden: those
// whose addresses mean something else where the task is, or where the reply comes
// back to; everyone while some node's tasks cannot answer by the entry node.
func (c *compiler) masqueradeFrom() []netip.Prefix {
	if c.hides {
		return []netip.Prefix{everywhere, everywhere6}
	}
	out := append(c.direct(), meshHost.Masked(), GatewayPrefix.Masked())
	if c.mesh6() {
		out = append(out, meshHost6.Masked(), GatewayPrefix6.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// direct are the sources that a task answers on the ingress network itself.
func (c *compiler) direct() []netip.Prefix {
	out := []netip.Prefix{balancerPrefix}
	if has6(c.ingress) {
		out = append(out, balancerPrefix6)
	}
	for _, s := range subnets(c.ingress) {
		out = append(out, s.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// returnPath is how a task answers clients that kept their address, nil where it
// has no leg on the ingress network.
func (c *compiler) returnPath(l Local) *lb.ReturnPath {
	if c.in.Self.HidesClients {
		return nil
	}
	if link := c.meshLink(l); link != "" {
		r := &lb.ReturnPath{Interface: link, Neighbors: balancerMAC, Direct: c.direct(), Mark: returnMark}
		for _, p := range c.gateways(l) {
			r.Datagrams = append(r.Datagrams, p.Addr())
		}
		return r
	}
	return nil
}

// meshLink is the task's leg on the ingress network, "" without one.
func (c *compiler) meshLink(l Local) string {
	if c.ingress == nil {
		return ""
	}
	for _, leg := range c.sandbox(l).Interfaces {
		if leg.NetworkID == c.ingress.ID {
			return leg.Name
		}
	}
	return ""
}

// virtualIPs lists the virtual IPs of one network.
func (c *compiler) virtualIPs(networkID string) []lb.Service {
	var out []lb.Service
	for _, f := range c.fronts[networkID] {
		out = append(out, c.balanced(f.service, lb.Front{Addr: f.addr}, networkID, 0))
	}
	return out
}

// balanced spreads a front over the service's tasks on the network. Those that
// rest because of their node's silence alone are left out: nobody waits for them.
// While tasks of this node are preferred, the others keep what they have.
func (c *compiler) balanced(s *api.Service, at lb.Front, networkID string, port uint16) lb.Service {
	p, spots := c.policy(s), c.spots[place{s.ID, networkID}]
	out := lb.Service{Front: at, Name: s.Spec.Name, Algorithm: lb.Algorithm(p.Algorithm), Sticky: p.Sticky}
	near := c.near(p, spots)
	for _, r := range spots {
		if r.silent && r.rests {
			continue
		}
		b := lb.Backend{Port: port, Weight: c.weight(p, r.Owner), Task: r.Value.TaskName,
			Draining: r.rests || near && r.Owner != c.in.Self.ID}
		for _, addr := range r.at.Addrs {
			if addr.Is4() == at.Addr.Is4() {
				b.Addr = addr
				out.Backends = append(out.Backends, b)
				break
			}
		}
	}
	return out
}

// nameServer is where a task's resolver is told to ask.
var nameServer = netip.MustParseAddr("127.0.0.11")

const dnsPort = 53

// translations is what the host and every task need besides balancing.
func (c *compiler) translations() []lb.Translation {
	out := []lb.Translation{c.hostTranslation()}
	for _, l := range c.in.Local {
		// Tasks are on the ingress network for clients from outside, not for each other.
		t := lb.Translation{Namespace: l.Namespace, Return: c.returnPath(l), Closed: c.meshLink(l)}
		if l.DNSPort != 0 {
			for _, proto := range []lb.Protocol{lb.TCP, lb.UDP} {
				t.Redirects = append(t.Redirects, lb.Redirect{
					Protocol: proto,
					From:     netip.AddrPortFrom(nameServer, dnsPort),
					To:       netip.AddrPortFrom(nameServer, l.DNSPort),
				})
			}
		}
		out = append(out, t)
	}
	return out
}

func (c *compiler) hostTranslation() lb.Translation {
	var t lb.Translation
	for _, p := range c.mesh {
		for _, peer := range c.meshPeers() {
			t.Forwards = append(t.Forwards, c.bound(c.policy(p.service), p.port, lb.Forward{
				Protocol: lb.Protocol(p.port.Protocol), Port: uint16(p.port.PublishedPort),
				To:   netip.AddrPortFrom(peer, uint16(p.port.PublishedPort)),
				Name: p.service.Spec.Name,
			})...)
		}
	}
	gateway := false
	for _, l := range c.in.Local {
		if !l.Gateway.IsValid() {
			continue
		}
		gateway = true
		for _, p := range l.Task.Ports {
			if l.Live && p.PublishMode == swarm.PortConfigPublishModeHost && p.PublishedPort != 0 {
				t.Forwards = append(t.Forwards, c.toTask(l, p)...)
			}
		}
	}
	if gateway {
		t.Masquerade = []lb.Egress{{Source: GatewayPrefix.Masked(), Bridge: GatewayBridge}}
	}
	if gateway && c.in.Self.routes6() {
		t.Masquerade = append(t.Masquerade, lb.Egress{Source: GatewayPrefix6.Masked(), Bridge: GatewayBridge})
	}
	c.guard(&t)
	return t
}

// toTask leads a port of the host to a task, in each family that both have.
func (c *compiler) toTask(l Local, p swarm.PortConfig) (out []lb.Forward) {
	policy, _ := api.ParsePolicy(l.Task.ServiceLabels)
	for _, gateway := range c.gateways(l) {
		out = append(out, c.bound(policy, p, lb.Forward{
			Protocol: lb.Protocol(p.Protocol), Port: uint16(p.PublishedPort),
			To:   netip.AddrPortFrom(gateway.Addr(), uint16(p.TargetPort)),
			Name: TaskName(l.Task),
		})...)
	}
	return out
}

// TaskName is the task's name without its id: web.3, web.<node> for a global one,
// and the container's own for one that is no service's.
func TaskName(t *api.Task) string {
	if t.Standalone() {
		return t.Name
	}
	if t.Slot == 0 {
		return t.ServiceName + "." + t.NodeID
	}
	return t.ServiceName + "." + strconv.Itoa(t.Slot)
}
