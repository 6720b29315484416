package dockerapi

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
)

// predefinedLabel marks networks that Docker makes itself; users may not set it.
const predefinedLabel = "com.docker.swarm.predefined"

func (a *API) createNetwork(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var req network.CreateRequest
	if err := wire.ReadJSON(r, &req); err != nil {
		return err
	}
	spec, err := networkSpec(req)
	if err != nil {
		return err
	}
	// Docker forbids here what it calls unavailable everywhere else.
	if err := notManager(a.cfg.Lifecycle.Info()); err != nil {
		return api.Errorf(api.Forbidden, "%w", err)
	}
	id := api.NewID()
	err = a.change(r.Context(), func(v View) ([]api.Op, error) {
		if err := a.checkNewNetwork(v, spec); err != nil {
			return nil, err
		}
		n := &api.Network{}
		n.ID, n.Spec = id, *spec
		return []api.Op{api.Create(n.Copy())}, nil
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusCreated, network.CreateResponse{ID: id, Warning: createWarning(req)})
}

func createWarning(req network.CreateRequest) string {
	if req.IPAM != nil && slices.ContainsFunc(req.IPAM.Config, func(c network.IPAMConfig) bool { return len(c.AuxAddress) > 0 }) {
		return "auxiliary addresses are ignored on networks of the cluster"
	}
	return ""
}

// networkSpec turns a request into the spec of a cluster network, or refuses it.
func networkSpec(req network.CreateRequest) (*swarm.NetworkSpec, error) {
	if slices.Contains(reserved, req.Name) {
		return nil, api.Errorf(api.Forbidden, "%s is a pre-defined network and cannot be created", req.Name)
	}
	if err := checkRequest(req); err != nil {
		return nil, err
	}
	spec := &swarm.NetworkSpec{
		Annotations:         swarm.Annotations{Name: req.Name, Labels: req.Labels},
		DriverConfiguration: &swarm.Driver{Name: cmp.Or(req.Driver, driverOverlay), Options: req.Options},
		IPv6Enabled:         req.EnableIPv6 != nil && *req.EnableIPv6,
		Internal:            req.Internal, Attachable: req.Attachable, Ingress: req.Ingress,
		Scope: scopeSwarm,
	}
	if req.IPAM == nil {
		return spec, nil
	}
	spec.IPAMOptions = &swarm.IPAMOptions{Driver: swarm.Driver{Name: cmp.Or(req.IPAM.Driver, "default"), Options: req.IPAM.Options}}
	for _, c := range req.IPAM.Config {
		spec.IPAMOptions.Configs = append(spec.IPAMOptions.Configs, swarm.IPAMConfig{Subnet: c.Subnet, Range: c.IPRange, Gateway: c.Gateway})
	}
	return spec, nil
}

func checkRequest(req network.CreateRequest) error {
	if err := checkName(req.Name); err != nil {
		return err
	}
	if _, ok := req.Labels[predefinedLabel]; ok {
		return api.Errorf(api.Forbidden, "label %s is for internally created predefined networks and cannot be applied by users", predefinedLabel)
	}
	switch {
	case req.Driver != "" && req.Driver != driverOverlay:
		return api.Errorf(api.Unimplemented, "networks of driver %q are not supported by this version: only overlay networks can be created", req.Driver)
	case req.Scope != "" && req.Scope != scopeSwarm:
		return api.Errorf(api.Invalid, "overlay networks have the scope swarm, not %q", req.Scope)
	case req.ConfigOnly || req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return api.Errorf(api.Unimplemented, "config-only networks are not supported by this version")
	case req.Ingress && req.Attachable:
		return api.Errorf(api.Invalid, "ingress network cannot be attachable")
	case req.IPAM == nil:
		return nil
	case req.IPAM.Driver != "" && req.IPAM.Driver != "default":
		return api.Errorf(api.Unimplemented, "IPAM driver %q is not supported by this version", req.IPAM.Driver)
	}
	for i, c := range req.IPAM.Config {
		if err := checkIPAM(c, req.IPAM.Config[:i]); err != nil {
			return err
		}
	}
	return nil
}

func checkIPAM(c network.IPAMConfig, before []network.IPAMConfig) error {
	if !c.Subnet.IsValid() {
		return api.Errorf(api.Invalid, "ipam configuration: invalid subnet ")
	}
	if c.IPRange.IsValid() && (!c.Subnet.Contains(c.IPRange.Addr()) || c.IPRange.Bits() < c.Subnet.Bits()) {
		return api.Errorf(api.Invalid, "ipam configuration: subnet %s does not contain range %s", c.Subnet, c.IPRange)
	}
	if c.Gateway.IsValid() && !c.Subnet.Contains(c.Gateway) {
		return api.Errorf(api.Invalid, "ipam configuration: subnet %s does not contain gateway %s", c.Subnet, c.Gateway)
	}
	for _, other := range before {
		if other.Subnet.Overlaps(c.Subnet) {
			return api.Errorf(api.Invalid, "ipam configuration: subnets %s and %s overlap", other.Subnet, c.Subnet)
		}
	}
	return nil
}

func (a *API) checkNewNetwork(v View, spec *swarm.NetworkSpec) error {
	if v.NetworkByName(spec.Name) != nil {
		return api.Errorf(api.Conflict, "network with name %s already exists", spec.Name)
	}
	if spec.Ingress {
		if n := ingressNetwork(v); n != nil {
			return api.Errorf(api.Conflict, "ingress network (%s) is already present", n.ID)
		}
	}
	return a.cfg.CheckPools(v, spec)
}

func (a *API) removeNetwork(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	found, err := pickNetwork(a.networks(), vars["id"], "")
	if err != nil {
		return err
	}
	if found.Scope != scopeSwarm {
		if slices.Contains(reserved, found.Name) {
			return api.Errorf(api.Forbidden, "%s is a pre-defined network and cannot be removed", found.Name)
		}
		return api.Errorf(api.Forbidden, "network %s belongs to this node and cannot be removed", found.Name)
	}
	err = a.change(r.Context(), func(v View) ([]api.Op, error) {
		n, err := findNetwork(v, found.ID)
		if err != nil {
			return nil, err
		}
		if err := networkInUse(v, n); err != nil {
			return nil, err
		}
		return []api.Op{api.Delete(n)}, nil
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func networkInUse(v View, n *api.Network) error {
	for _, s := range usersOf(v, n) {
		if n.Spec.Ingress {
			return api.Errorf(api.Invalid, "ingress network cannot be removed because service %s depends on it", s.ID)
		}
		return api.Errorf(api.Invalid, "network %s is in use by service %s", n.ID, s.ID)
	}
	if n.Spec.Ingress {
		return nil
	}
	for _, t := range v.Tasks() {
		// Tasks of a service that is gone are about to stop and do not count,
		// so that a stack and its networks can be removed in one go.
		if !t.Wanted() || !t.Alive() || t.ServiceID != "" && v.Service(t.ServiceID) == nil {
			continue
		}
		if _, ok := addressIn(t, n.ID); ok {
			return api.Errorf(api.Invalid, "network %s is in use by task %s", n.ID, t.ID)
		}
	}
	return nil
}
