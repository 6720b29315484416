package dockerapi

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/alloc"
	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/store"
)

// predefinedLabel marks networks that Docker makes itself; users may not set it.
const predefinedLabel = "com.docker.swarm.predefined"

// vniOption wishes for VXLAN identifiers.
const vniOption = "com.docker.network.driver.overlay.vxlanid_list"

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
	err = a.change(r.Context(), func(v *store.View) ([]api.Op, error) {
		n := &api.Network{}
		n.ID, n.Spec, n.NoIPv4, n.Reserved = id, *spec, withoutIPv4(req), reservedAddresses(req)
		if err := checkNewNetwork(v, n); err != nil {
			return nil, err
		}
		return []api.Op{api.Create(n)}, nil
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusCreated, network.CreateResponse{ID: id, Warning: createWarning(req)})
}

// createWarning tells of what is understood and not done.
func createWarning(req network.CreateRequest) string {
	if vnis := req.Options[vniOption]; strings.Contains(vnis, ",") {
		return "a network of several subnets has one VXLAN identifier: the first of " + vnis + " is used"
	}
	return ""
}

// reservedAddresses are the auxiliary addresses of all subnets.
func reservedAddresses(req network.CreateRequest) map[string]netip.Addr {
	if req.IPAM == nil {
		return nil
	}
	var all map[string]netip.Addr
	for _, c := range req.IPAM.Config {
		for name, addr := range c.AuxAddress {
			if all == nil {
				all = map[string]netip.Addr{}
			}
			all[name] = addr
		}
	}
	return all
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
		IPv6Enabled:         wantsIPv6(req),
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
	case withoutIPv4(req) && !wantsIPv6(req):
		return api.Errorf(api.Invalid, "IPv4 or IPv6 must be enabled")
	case req.IPAM != nil && req.IPAM.Driver != "" && req.IPAM.Driver != "default":
		return api.Errorf(api.Unimplemented, "IPAM driver %q is not supported by this version", req.IPAM.Driver)
	}
	_, err := api.NetworkMTU(req.Options, wantsIPv6(req))
	return err
}

func withoutIPv4(req network.CreateRequest) bool { return req.EnableIPv4 != nil && !*req.EnableIPv4 }

// wantsIPv6 says whether the request asks for IPv6. One that names an IPv6 subnet
// does: clients that know no switch for it leave it out or say no.
func wantsIPv6(req network.CreateRequest) bool {
	return req.EnableIPv6 != nil && *req.EnableIPv6 ||
		req.IPAM != nil && slices.ContainsFunc(req.IPAM.Config, func(c network.IPAMConfig) bool { return c.Subnet.Addr().Is6() })
}

func checkNewNetwork(v *store.View, n *api.Network) error {
	if v.NetworkByName(n.Spec.Name) != nil {
		return api.Errorf(api.Conflict, "network with name %s already exists", n.Spec.Name)
	}
	if n.Spec.Ingress {
		if present := ingressNetwork(v); present != nil {
			return api.Errorf(api.Conflict, "ingress network (%s) is already present", present.ID)
		}
	}
	return alloc.ValidateNetwork(v, n)
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
	if err := notManager(a.cfg.Lifecycle.Info()); err != nil {
		return err
	}
	if err := a.deleteNetwork(r.Context(), found.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// removeWait bounds how long the removal of a network waits for what the leader is
// about to do: taking virtual IPs from services that have left the network, and
// telling tasks of removed services to stop.
const removeWait = 10 * time.Second

// deleteNetwork proposes the removal. It does not wait for tasks that are about
// to stop: they keep what they have of the network, and its subnets and
// identifier are free once every node has confirmed that it is gone.
func (a *API) deleteNetwork(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, removeWait)
	defer cancel()
	for {
		changed := a.store().Changed(api.KindTask, api.KindService)
		n, err := findNetwork(a.store().View(), id)
		if err != nil {
			return err
		}
		leaving, err := networkUse(a.store().View(), n)
		if err == nil {
			return a.cfg.Proposer.Propose(ctx, []api.Op{api.Delete(n)})
		}
		if !leaving {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return err
		}
	}
}

// networkUse says who uses the network, nil when nobody does but tasks that are
// about to stop. leaving says that those will go by themselves: tasks whose
// service has left the network or is gone, and services that no longer ask for the
// network but still have an address there.
func networkUse(v *store.View, n *api.Network) (leaving bool, err error) {
	var last error
	for _, s := range usersOf(v, n) {
		if n.Spec.Ingress {
			return false, api.Errorf(api.Invalid, "ingress network cannot be removed because service %s depends on it", s.Spec.Name)
		}
		last = api.Errorf(api.Invalid, "network %s is in use by service %s", n.Spec.Name, s.Spec.Name)
		if asksFor(&s.Spec, n) {
			return false, last
		}
	}
	for _, t := range v.TasksByNetwork(n.ID) {
		if !t.Wanted() {
			continue
		}
		if t.Standalone() {
			return false, api.Errorf(api.Invalid, "network %s is in use by container %s on node %s", n.Spec.Name, t.Name, hostname(v, t.NodeID))
		}
		last = api.Errorf(api.Invalid, "network %s is in use by task %s", n.Spec.Name, t.ID)
		if t.ServiceID == "" {
			return false, last
		}
	}
	return true, last
}

func asksFor(spec *swarm.ServiceSpec, n *api.Network) bool {
	return slices.ContainsFunc(spec.TaskTemplate.Networks, func(a swarm.NetworkAttachmentConfig) bool {
		return a.Target == n.ID || a.Target == n.Spec.Name
	})
}

func hostname(v *store.View, nodeID string) string {
	if n := v.Node(nodeID); n != nil && n.Description.Hostname != "" {
		return n.Description.Hostname
	}
	return nodeID
}
