package dockerapi

import (
	"net/http"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/store"
)

// specBody is a service's spec as clients send it. Clients of old put the
// networks beside the task template instead of into it.
type specBody struct {
	swarm.ServiceSpec
	Networks []swarm.NetworkAttachmentConfig
}

// readSpec reads and normalises the spec of a request, without looking at the
// cluster's state.
func readSpec(r *http.Request) (swarm.ServiceSpec, error) {
	var body specBody
	if err := wire.ReadJSON(r, &body); err != nil {
		return swarm.ServiceSpec{}, err
	}
	spec := body.ServiceSpec
	if len(spec.TaskTemplate.Networks) == 0 {
		spec.TaskTemplate.Networks = body.Networks
	}
	ignoreNewer(&spec, wire.VersionOf(r))
	return spec, nil
}

func (a *API) createService(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	spec, err := readSpec(r)
	if err != nil {
		return err
	}
	if spec.Name == "" {
		v := a.store().View()
		spec.Name = randomName(func(name string) bool { return v.ServiceByName(name) != nil })
	}
	id := api.NewID()
	err = a.change(r.Context(), func(v *store.View) ([]api.Op, error) {
		s := &api.Service{}
		s.ID = id
		s.Spec = copySpec(spec)
		if err := checkNewSpec(v, &s.Spec, ""); err != nil {
			return nil, err
		}
		if v.ServiceByName(s.Spec.Name) != nil {
			return nil, api.Errorf(api.Conflict, "name conflicts with an existing object: service %s already exists", s.Spec.Name)
		}
		return append(predefine(v, &s.Spec), api.Create(s)), nil
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusCreated, swarm.ServiceCreateResponse{ID: id, Warnings: warnings(r, spec)})
}

// copySpec copies deeply by way of the service's own copy.
func copySpec(spec swarm.ServiceSpec) swarm.ServiceSpec {
	s := api.Service{}
	s.Spec = spec
	return s.Copy().Spec
}

// checkNewSpec resolves the networks of a spec that a user sent, normalises it
// and validates it against the state. self is the id of the service that is
// updated, "" for a new one.
func checkNewSpec(v *store.View, spec *swarm.ServiceSpec, self string) error {
	if err := resolveNetworks(v, spec); err != nil {
		return err
	}
	if err := normalizeSpec(spec); err != nil {
		return err
	}
	if err := validateSpec(spec); err != nil {
		return err
	}
	if err := checkAttachments(v, spec); err != nil {
		return err
	}
	if err := checkNodeNetwork(v, spec); err != nil {
		return err
	}
	var old *swarm.ServiceSpec
	if s := v.Service(self); s != nil {
		old = &s.Spec
	}
	if err := checkLabels(spec, old); err != nil {
		return err
	}
	if err := checkBalancers(v, spec, old); err != nil {
		return err
	}
	if err := checkPortConflicts(v, spec, self); err != nil {
		return err
	}
	return checkIngress(v, spec)
}

// resolveNetworks replaces the names of networks by their ids.
func resolveNetworks(v *store.View, spec *swarm.ServiceSpec) error {
	for i, n := range spec.TaskTemplate.Networks {
		network, err := networkOf(v, n.Target)
		if err != nil {
			return err
		}
		spec.TaskTemplate.Networks[i].Target = network.ID
	}
	return nil
}

func checkAttachments(v *store.View, spec *swarm.ServiceSpec) error {
	seen := map[string]bool{}
	for _, n := range spec.TaskTemplate.Networks {
		network, err := networkOf(v, n.Target)
		if err != nil {
			return err
		}
		if network.Spec.Ingress {
			return api.Errorf(api.Invalid, "Service cannot be explicitly attached to the ingress network %q", network.Spec.Name)
		}
		if seen[n.Target] {
			return api.Errorf(api.Invalid, "service is attached to network %s more than once", network.Spec.Name)
		}
		seen[n.Target] = true
	}
	return nil
}

// needsIngress says whether the service has a port in the routing mesh.
func needsIngress(spec *swarm.ServiceSpec) bool {
	if spec.EndpointSpec == nil || spec.EndpointSpec.Mode == swarm.ResolutionModeDNSRR {
		return false
	}
	for _, p := range spec.EndpointSpec.Ports {
		if p.PublishMode != swarm.PortConfigPublishModeHost {
			return true
		}
	}
	return false
}

func checkIngress(v *store.View, spec *swarm.ServiceSpec) error {
	if needsIngress(spec) && ingressNetwork(v) == nil {
		return api.Errorf(api.Invalid, "service needs ingress network, but no ingress network is present")
	}
	return nil
}

func ingressNetwork(v *store.View) *api.Network {
	for _, n := range v.Networks() {
		if n.Spec.Ingress {
			return n
		}
	}
	return nil
}

// port is what no two services may publish in the routing mesh.
type port struct {
	proto  string
	number uint32
}

// checkPortConflicts refuses a published port that another service has in the
// routing mesh, or a port of the mesh that another service has on hosts. Host
// ports of several services may be equal: the scheduler keeps them apart.
func checkPortConflicts(v *store.View, spec *swarm.ServiceSpec, self string) error {
	if spec.EndpointSpec == nil {
		return nil
	}
	wanted := map[port]swarm.PortConfigPublishMode{}
	for _, p := range spec.EndpointSpec.Ports {
		if p.PublishedPort != 0 {
			wanted[port{string(p.Protocol), p.PublishedPort}] = p.PublishMode
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	for _, s := range v.Services() {
		if s.ID == self {
			continue
		}
		if err := portTaken(wanted, s); err != nil {
			return err
		}
	}
	return nil
}

func portTaken(wanted map[port]swarm.PortConfigPublishMode, s *api.Service) error {
	taken := s.Endpoint.Ports
	if s.Spec.EndpointSpec != nil {
		taken = append(taken[:len(taken):len(taken)], s.Spec.EndpointSpec.Ports...)
	}
	for _, p := range taken {
		mode, conflict := wanted[port{string(p.Protocol), p.PublishedPort}]
		switch {
		case !conflict || p.PublishedPort == 0:
		case p.PublishMode != swarm.PortConfigPublishModeHost:
			return api.Errorf(api.Invalid, "port '%d' is already in use by service '%s' (%s) as an ingress port", p.PublishedPort, s.Spec.Name, s.ID)
		case mode != swarm.PortConfigPublishModeHost:
			return api.Errorf(api.Invalid, "port '%d' is already in use by service '%s' (%s) as a host-published port", p.PublishedPort, s.Spec.Name, s.ID)
		}
	}
	return nil
}
