package plan

import (
	"net/netip"
	"strconv"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/overlay/endpoint"
)

// AlgorithmLabel is the service label that chooses the balancing algorithm.
const AlgorithmLabel = "shoal.lb.algorithm"

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
// namespace, and the ingress namespace the published ports.
func (c *compiler) balancers() []lb.Desired {
	var out []lb.Desired
	for _, n := range c.used {
		if n == c.ingress {
			out = append(out, c.mesh())
		}
	}
	for _, l := range c.in.Local {
		d := lb.Desired{Namespace: l.Namespace}
		for _, a := range l.Task.NetworksAttachments {
			d.Services = append(d.Services, c.virtualIPs(a.Network.ID)...)
		}
		out = append(out, d)
	}
	return out
}

// mesh is the routing mesh of this node: what the host sends to the ingress
// namespace is spread over the tasks' ingress addresses.
func (c *compiler) mesh() lb.Desired {
	d := lb.Desired{Namespace: c.in.Self.NamespacePath(c.ingress.ID), Masquerade: true}
	for _, p := range c.published() {
		d.Services = append(d.Services, lb.Service{
			Front: lb.Front{
				Addr: meshPeer.Addr(), Port: uint16(p.port.PublishedPort), Protocol: lb.Protocol(p.port.Protocol),
			},
			Name:      p.service.Spec.Name,
			Algorithm: algorithm(p.service),
			Backends:  c.backends(p.service.ID, c.ingress.ID, uint16(p.port.TargetPort)),
		})
	}
	return d
}

// virtualIPs lists the virtual IPs of one network.
func (c *compiler) virtualIPs(networkID string) []lb.Service {
	if c.ingress != nil && networkID == c.ingress.ID {
		return nil
	}
	var out []lb.Service
	for _, s := range c.in.Services {
		for _, vip := range s.Endpoint.VirtualIPs {
			if vip.NetworkID != networkID || !vip.Addr.IsValid() {
				continue
			}
			out = append(out, lb.Service{
				Front:     lb.Front{Addr: vip.Addr.Addr()},
				Name:      s.Spec.Name,
				Algorithm: algorithm(s),
				Backends:  c.backends(s.ID, networkID, 0),
			})
		}
	}
	return out
}

// backends lists the endpoints of a service on a network. Those on a node that
// gossip misses are left out, unless nothing else is left and the managers have
// not given the node up: silence alone never takes a service's last backend.
func (c *compiler) backends(serviceID, networkID string, port uint16) []lb.Backend {
	var heard, silent []lb.Backend
	usable := false
	for _, r := range c.records {
		a, on := attachment(r, networkID)
		if !on || r.Value.ServiceID != serviceID || c.dead[r.Owner] {
			continue
		}
		b := lb.Backend{Port: port, Weight: 1, Draining: r.Value.State == endpoint.Draining, Task: r.Value.TaskName}
		for _, b.Addr = range firstIPv4(a.Addrs) {
			if c.in.Silent[r.Owner] && r.Owner != c.in.Self.ID {
				silent = append(silent, b)
				continue
			}
			usable = usable || !b.Draining
			heard = append(heard, b)
		}
	}
	if !usable {
		heard = append(heard, silent...)
	}
	return heard
}

// firstIPv4 returns the address that IPv4 fronts are balanced to, if there is one.
func firstIPv4(addrs []netip.Addr) []netip.Addr {
	for i, a := range addrs {
		if a.Is4() {
			return addrs[i : i+1]
		}
	}
	return nil
}

func algorithm(s *api.Service) lb.Algorithm {
	if a := s.Spec.Labels[AlgorithmLabel]; a != "" {
		return lb.Algorithm(a)
	}
	return lb.RoundRobin
}

// nameServer is where a task's resolver is told to ask.
var nameServer = netip.MustParseAddr("127.0.0.11")

const dnsPort = 53

// translations is what the host and every task need besides balancing.
func (c *compiler) translations() []lb.Translation {
	out := []lb.Translation{c.hostTranslation()}
	for _, l := range c.in.Local {
		t := lb.Translation{Namespace: l.Namespace}
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
	for _, p := range c.published() {
		t.Forwards = append(t.Forwards, lb.Forward{
			Protocol: lb.Protocol(p.port.Protocol), Port: uint16(p.port.PublishedPort),
			To:   netip.AddrPortFrom(meshPeer.Addr(), uint16(p.port.PublishedPort)),
			Name: p.service.Spec.Name,
		})
	}
	gateway := false
	for _, l := range c.in.Local {
		if !l.Gateway.IsValid() {
			continue
		}
		gateway = true
		for _, p := range l.Task.Ports {
			if l.Live && p.PublishMode == swarm.PortConfigPublishModeHost && p.PublishedPort != 0 {
				t.Forwards = append(t.Forwards, lb.Forward{
					Protocol: lb.Protocol(p.Protocol), Port: uint16(p.PublishedPort),
					To:   netip.AddrPortFrom(l.Gateway.Addr(), uint16(p.TargetPort)),
					Name: TaskName(l.Task),
				})
			}
		}
	}
	if gateway {
		t.Masquerade = []lb.Egress{{Source: GatewayPrefix.Masked(), Bridge: GatewayBridge}}
	}
	return t
}

// TaskName is the task's name without its id: web.3, or web.<node> for a global one.
func TaskName(t *api.Task) string {
	if t.Slot == 0 {
		return t.ServiceName + "." + t.NodeID
	}
	return t.ServiceName + "." + strconv.Itoa(t.Slot)
}
