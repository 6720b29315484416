package alloc

import (
	"net/netip"
	"reflect"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// key identifies a published port; Docker's default protocol is tcp.
func key(p swarm.PortConfig) port {
	if p.Protocol == "" {
		p.Protocol = network.TCP
	}
	return port{p.Protocol, p.PublishedPort}
}

// ingressPort says whether the port is published in the routing mesh, which is
// Docker's default.
func ingressPort(p swarm.PortConfig) bool {
	return p.PublishMode == swarm.PortConfigPublishModeIngress || p.PublishMode == ""
}

func endpointSpec(s *api.Service) swarm.EndpointSpec {
	var spec swarm.EndpointSpec
	if s.Spec.EndpointSpec != nil {
		spec = *s.Spec.EndpointSpec
	}
	if spec.Mode == "" {
		spec.Mode = swarm.ResolutionModeVIP
	}
	return spec
}

// planServices gives every service that changed, or could not get something
// before, the endpoint its spec wishes.
func (a *Allocator) planServices() []api.Op {
	for id := range a.trouble {
		if a.services[id] != nil {
			a.todoServices[id] = true
		}
	}
	var ops []api.Op
	for _, id := range drain(a.todoServices) {
		s := a.services[id]
		endpoint, err := a.endpoint(s)
		if err != nil {
			// What it got of what it needs goes back.
			a.SetService(s.Service)
			a.trouble[id] = err
			continue
		}
		delete(a.trouble, id)
		if sameEndpoint(endpoint, s.Endpoint) {
			continue
		}
		c := *s.Service
		c.Endpoint = endpoint
		s.Service = &c
		ops = append(ops, api.Update(&c))
	}
	return ops
}

func sameEndpoint(a, b swarm.Endpoint) bool {
	return reflect.DeepEqual(a, b) || (len(a.Ports)+len(b.Ports)+len(a.VirtualIPs)+len(b.VirtualIPs) == 0 &&
		a.Spec.Mode == b.Spec.Mode && len(a.Spec.Ports)+len(b.Spec.Ports) == 0)
}

// endpoint returns what the service is to have, keeping what it has and still
// needs. What it gives up stays taken until the change is committed and told.
func (a *Allocator) endpoint(s *serviceState) (swarm.Endpoint, error) {
	spec := endpointSpec(s.Service)
	e := swarm.Endpoint{Spec: spec}
	var err error
	if e.Ports, err = a.publish(s, spec.Ports); err != nil {
		return e, err
	}
	if spec.Mode != swarm.ResolutionModeVIP {
		return e, nil
	}
	nets, err := a.networksOf(s.Service, e.Ports)
	if err != nil {
		return e, err
	}
	for _, n := range nets {
		if !managed(n.Network) {
			continue
		}
		for _, six := range n.families() {
			vip, err := a.vip(s, n, six)
			if err != nil {
				return e, err
			}
			e.VirtualIPs = append(e.VirtualIPs, swarm.EndpointVirtualIP{NetworkID: n.ID, Addr: vip})
		}
	}
	return e, nil
}

// networksOf returns the networks of a service's tasks, the ingress network
// first, each once.
func (a *Allocator) networksOf(s *api.Service, ports []swarm.PortConfig) ([]*netState, error) {
	var nets []*netState
	seen := map[string]bool{}
	add := func(n *netState) error {
		switch {
		case !n.allocated():
			return api.Errorf(api.Unavailable, "network %s has no subnet yet", n.Spec.Name)
		case !seen[n.ID]:
			seen[n.ID] = true
			nets = append(nets, n)
		}
		return nil
	}
	for _, p := range ports {
		if !ingressPort(p) {
			continue
		}
		n := a.networks[a.ingress]
		if a.ingress == "" || n == nil {
			return nil, api.Errorf(api.Unavailable, "service %s needs an ingress network, but no ingress network is present", s.Spec.Name)
		}
		if err := add(n); err != nil {
			return nil, err
		}
		break
	}
	for _, ref := range s.Spec.TaskTemplate.Networks {
		n := a.find(ref.Target)
		if n == nil {
			return nil, api.Errorf(api.NotFound, "network %s not found", ref.Target)
		}
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return nets, nil
}

// vip returns the service's virtual IP of one family in the network: the one it
// has, or the next free address.
func (a *Allocator) vip(s *serviceState, n *netState, six bool) (netip.Prefix, error) {
	for _, v := range s.Endpoint.VirtualIPs {
		if v.NetworkID == n.ID && v.Addr.IsValid() && v.Addr.Addr().Is6() == six && n.has(v.Addr.Addr()) {
			return v.Addr, nil
		}
	}
	if n.full {
		return netip.Prefix{}, n.exhausted()
	}
	vip, err := n.giveOne(six)
	if err != nil {
		return netip.Prefix{}, err
	}
	h := []held{{n.ID, vip.Addr()}}
	a.take(h)
	s.addrs = append(s.addrs, h...)
	return vip, nil
}

// publish returns the ports with numbers for those left open: the number the
// service already has for the same target, or the next free one.
func (a *Allocator) publish(s *serviceState, wished []swarm.PortConfig) ([]swarm.PortConfig, error) {
	var ports []swarm.PortConfig
	for _, p := range wished {
		if ingressPort(p) && p.PublishedPort != 0 {
			if err := a.claim(s, p); err != nil {
				return nil, err
			}
		}
	}
	had := append([]swarm.PortConfig(nil), s.Endpoint.Ports...)
	for _, p := range wished {
		if ingressPort(p) && p.PublishedPort == 0 {
			number, err := a.openPort(s, p, wished, &had)
			if err != nil {
				return nil, err
			}
			p.PublishedPort = number
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// claim takes a wished port for the service.
func (a *Allocator) claim(s *serviceState, p swarm.PortConfig) error {
	k := key(p)
	switch owner := a.ports[k]; owner {
	case s.ID:
	case "":
		a.ports[k] = s.ID
		s.ports = append(s.ports, k)
	default:
		return api.Errorf(api.Invalid, "port '%d' is already in use by service '%s' (%s) as an ingress port",
			p.PublishedPort, a.services[owner].Spec.Name, owner)
	}
	return nil
}

// openPort chooses the number of a port that the spec leaves open.
func (a *Allocator) openPort(s *serviceState, p swarm.PortConfig, wished []swarm.PortConfig, had *[]swarm.PortConfig) (uint32, error) {
	for i, old := range *had {
		dynamic := old.PublishedPort >= FirstPort && old.PublishedPort <= LastPort
		if dynamic && ingressPort(old) && old.TargetPort == p.TargetPort && key(old).protocol == key(p).protocol &&
			a.ports[key(old)] == s.ID && !named(wished, old) {
			*had = append((*had)[:i:i], (*had)[i+1:]...)
			return old.PublishedPort, nil
		}
	}
	for range LastPort - FirstPort + 1 {
		if a.lastPort++; a.lastPort > LastPort {
			a.lastPort = FirstPort
		}
		p.PublishedPort = a.lastPort
		if k := key(p); a.ports[k] == "" && a.published[k] == 0 {
			a.ports[k] = s.ID
			s.ports = append(s.ports, k)
			return a.lastPort, nil
		}
	}
	return 0, api.Errorf(api.Unavailable, "no port between %d and %d left to publish port %d of service %s",
		FirstPort, LastPort, p.TargetPort, s.Spec.Name)
}

// named says whether the spec itself names the published port.
func named(wished []swarm.PortConfig, p swarm.PortConfig) bool {
	for _, w := range wished {
		if key(w) == key(p) {
			return true
		}
	}
	return false
}
