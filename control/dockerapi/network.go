package dockerapi

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
)

const (
	scopeSwarm    = "swarm"
	driverOverlay = "overlay"
)

func (a *API) mountNetworks(rt *wire.Router) {
	rt.Handle("GET", "/networks", a.listNetworks)
	rt.Handle("GET", "/networks/{id}", a.inspectNetwork)
	rt.Handle("POST", "/networks/create", a.createNetwork)
	rt.Handle("DELETE", "/networks/{id}", a.removeNetwork)
	rt.Handle("POST", "/networks/prune", a.onManager(a.pruneNetworks))
}

// reserved are the names of networks that every node has of its own.
var reserved = []string{network.NetworkBridge, network.NetworkHost, network.NetworkNone, network.NetworkDefault}

// networks are all that this node knows: its own and, on a manager, the cluster's.
func (a *API) networks() []network.Inspect {
	var all []network.Inspect
	if a.cfg.LocalNetworks != nil {
		all = append(all, a.cfg.LocalNetworks.List()...)
	}
	if notManager(a.cfg.Lifecycle.Info()) == nil {
		for _, n := range a.store().View().Networks() {
			if !n.Predefined {
				all = append(all, showNetwork(n))
			}
		}
	}
	slices.SortFunc(all, func(x, y network.Inspect) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID))
	})
	return all
}

// ShowAssigned lists networks of the cluster as a worker knows them: those that it has
// been told of, with those of its own tasks that are on them.
func ShowAssigned(networks []*api.Network, tasks []*api.Task) []network.Inspect {
	var out []network.Inspect
	for _, n := range networks {
		if n.Predefined || n.Removed {
			continue
		}
		shown := showNetwork(n)
		for _, t := range tasks {
			if _, on := addressIn(t, n.ID); on {
				addContainer(&shown, t, n.ID)
			}
		}
		out = append(out, shown)
	}
	return out
}

// showNetwork is the network as Docker shows it, without who uses it.
func showNetwork(n *api.Network) network.Inspect {
	out := network.Inspect{Containers: map[string]network.EndpointResource{}}
	out.Network = network.Network{
		Name: n.Spec.Name, ID: n.ID, Created: n.CreatedAt, Scope: scopeSwarm,
		Driver: driverOverlay, EnableIPv4: !n.NoIPv4, EnableIPv6: n.Spec.IPv6Enabled,
		IPAM:     network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
		Internal: n.Spec.Internal, Attachable: n.Spec.Attachable, Ingress: n.Spec.Ingress,
		Options: map[string]string{}, Labels: present(n.Spec.Labels),
	}
	if d := n.Spec.DriverConfiguration; d != nil {
		out.Driver, out.Options = cmp.Or(d.Name, driverOverlay), present(d.Options)
	}
	if n.DriverState.Name != "" {
		out.Driver, out.Options = n.DriverState.Name, present(n.DriverState.Options)
	}
	ipam := cmp.Or(n.IPAMOptions, n.Spec.IPAMOptions)
	if ipam == nil {
		return out
	}
	out.IPAM.Driver, out.IPAM.Options = cmp.Or(ipam.Driver.Name, "default"), ipam.Driver.Options
	for _, c := range ipam.Configs {
		shown := network.IPAMConfig{Subnet: c.Subnet, IPRange: c.Range, Gateway: c.Gateway}
		for name, addr := range n.Reserved {
			if c.Subnet.Contains(addr) {
				if shown.AuxAddress == nil {
					shown.AuxAddress = map[string]netip.Addr{}
				}
				shown.AuxAddress[name] = addr
			}
		}
		out.IPAM.Config = append(out.IPAM.Config, shown)
	}
	return out
}

func (a *API) listNetworks(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	f, err := wire.ParseFilters(r, "driver", "id", "label", "name", "scope", "type", "dangling")
	if err != nil {
		return err
	}
	dangling, useDangling, err := f.Bool("dangling")
	if err != nil {
		return err
	}
	for _, t := range f["type"] {
		if t != "builtin" && t != "custom" {
			return api.Errorf(api.Invalid, "invalid filter: 'type'='%s'", t)
		}
	}
	out := []network.Summary{}
	for _, n := range a.networks() {
		if networkFits(f, n) && (!useDangling || a.dangling(n) == dangling) {
			out = append(out, network.Summary{Network: n.Network})
		}
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func networkFits(f wire.Filters, n network.Inspect) bool {
	kind := "custom"
	if slices.Contains(reserved, n.Name) {
		kind = "builtin"
	}
	return f.Exact("driver", n.Driver) &&
		f.Contains("name", n.Name) &&
		f.Contains("id", n.ID) &&
		f.Labels("label", n.Labels) &&
		f.Exact("scope", n.Scope) &&
		f.Exact("type", kind)
}

// dangling says whether nothing uses the network: no service, no task, no container.
// A worker knows only networks that something uses.
func (a *API) dangling(n network.Inspect) bool {
	if n.Scope != scopeSwarm {
		return !slices.Contains(reserved, n.Name)
	}
	if notManager(a.cfg.Lifecycle.Info()) != nil {
		return false
	}
	v := a.store().View()
	stored := v.Network(n.ID)
	if stored == nil { // gone meanwhile
		return true
	}
	_, err := networkUse(v, stored)
	return err == nil
}

func (a *API) inspectNetwork(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	verbose, err := wire.StrictBool(r, "verbose")
	if err != nil {
		return err
	}
	scope := r.URL.Query().Get("scope")
	n, err := pickNetwork(a.networks(), vars["id"], scope)
	if api.KindOf(err) == api.NotFound && scope == scopeSwarm && notManager(a.cfg.Lifecycle.Info()) == nil {
		n, err = ofTheNodes(vars["id"], err)
	}
	if err != nil {
		return err
	}
	if n.Scope == scopeSwarm {
		describeUse(a.store().View(), &n, a.cfg.Lifecycle.Info().NodeID, verbose)
	}
	return wire.WriteJSON(w, http.StatusOK, n)
}

// pickNetwork finds a network by full id, exact name or unique beginning of its
// id. A cluster network wins over a node's own of the same name.
func pickNetwork(all []network.Inspect, ref, scope string) (network.Inspect, error) {
	var named, begun []network.Inspect
	for _, n := range all {
		if scope != "" && n.Scope != scope {
			continue
		}
		switch {
		case n.ID == ref:
			return n, nil
		case n.Name == ref:
			named = append(named, n)
		case strings.HasPrefix(n.ID, ref):
			begun = append(begun, n)
		}
	}
	if i := slices.IndexFunc(named, func(n network.Inspect) bool { return n.Scope == scopeSwarm }); i >= 0 {
		return named[i], nil
	}
	found := named
	if len(found) == 0 {
		found = begun
	}
	switch len(found) {
	case 0:
		return network.Inspect{}, api.Errorf(api.NotFound, "network %s not found", ref)
	case 1:
		return found[0], nil
	}
	return network.Inspect{}, api.Errorf(api.Invalid, "network %s is ambiguous (%d matches found)", ref, len(found))
}
