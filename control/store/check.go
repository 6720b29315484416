package store

import (
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// check refuses next if the state with it would break an invariant. Each check
// is a look-up by index.
func (t *txn) check(old, next api.Object) error {
	if err := t.checkReferences(old, next); err != nil {
		return err
	}
	return t.checkUnique(next)
}

// checkReferences refuses what refers to something that is gone; what old
// already referred to passes.
func (t *txn) checkReferences(old, next api.Object) error {
	var before, after []string
	switch next := next.(type) {
	case *api.Service:
		after = serviceNetworks(next)
		if old != nil {
			before = serviceNetworks(old.(*api.Service))
		}
	case *api.Task:
		if old == nil && next.ServiceID != "" && t.get(api.KindService, next.ServiceID) == nil {
			return notFound(api.KindService, next.ServiceID)
		}
		after = taskNetworks(next)
		if old != nil {
			before = taskNetworks(old.(*api.Task))
		}
	}
	for _, ref := range after {
		if slices.Contains(before, ref) {
			continue
		}
		if t.get(api.KindNetwork, ref) == nil && t.first(api.KindNetwork, byName, ref) == nil {
			// Docker answers 500 to it, hence the kind.
			return api.Errorf(api.Internal, "network %s not found", ref)
		}
	}
	return nil
}

// checkUnique refuses what has a name, number, port or address of another.
func (t *txn) checkUnique(next api.Object) error {
	if err := t.checkName(next); err != nil {
		return err
	}
	switch next := next.(type) {
	case *api.Cluster:
		return t.checkCluster(next)
	case *api.Node:
		return t.checkNode(next)
	case *api.Network:
		return t.checkNetwork(next)
	case *api.Service:
		return t.checkService(next)
	case *api.Task:
		return t.checkTask(next)
	}
	return nil
}

func (t *txn) checkName(next api.Object) error {
	kind, name := next.ObjectKind(), next.ObjectName()
	if name == "" {
		return nil
	}
	other := t.first(kind, byName, name)
	switch {
	case other == nil || other.ObjectID() == next.ObjectID():
		return nil
	case kind == api.KindNetwork:
		return api.Errorf(api.Conflict, "network with name %s already exists", name)
	}
	return api.Errorf(api.Conflict, "name conflicts with an existing object: %s %s already exists", kind, name)
}

func (t *txn) checkCluster(next *api.Cluster) error {
	if other := first(t.Txn, api.KindCluster, byIDPrefix, ""); other != nil && other.ObjectID() != next.ID {
		return api.Errorf(api.Conflict, "cluster %s already exists", other.ObjectID())
	}
	return nil
}

func (t *txn) checkNode(next *api.Node) error {
	for _, key := range someNumber(next.Number) {
		if other := t.first(api.KindNode, byNumber, key); other != nil && other.ObjectID() != next.ID {
			return api.Errorf(api.Internal, "node number %s of node %s belongs to node %s", key, next.ID, other.ObjectID())
		}
		if other := t.first(api.KindRetired, byNumber, key); other != nil {
			return api.Errorf(api.Internal, "node number %s of node %s is not free yet: %s", key, next.ID, other.ObjectID())
		}
	}
	return nil
}

func (t *txn) checkNetwork(next *api.Network) error {
	if other := t.first(api.KindNetwork, byIngress, ingressKey); next.Spec.Ingress && other != nil && other.ObjectID() != next.ID {
		return api.Errorf(api.Conflict, "ingress network (%s) is already present", other.ObjectID())
	}
	for _, key := range someNumber(next.VNI) {
		if other := t.first(api.KindNetwork, byVNI, key); other != nil && other.ObjectID() != next.ID {
			return api.Errorf(api.Internal, "VXLAN identifier %s of network %s (%s) belongs to network %s (%s)",
				key, next.Spec.Name, next.ID, other.ObjectName(), other.ObjectID())
		}
		if other := t.first(api.KindRetired, byVNI, key); other != nil {
			return api.Errorf(api.Internal, "VXLAN identifier %s of network %s (%s) is not free yet: %s", key, next.Spec.Name, next.ID, other.ObjectID())
		}
	}
	return nil
}

// checkUnused refuses to delete a network that something needs. Tasks that are
// about to stop keep what they have of it, see retire.
func (t *txn) checkUnused(n *api.Network) error {
	if s := t.first(api.KindService, byIngress, ingressKey); s != nil && n.Spec.Ingress {
		return api.Errorf(api.Invalid, "ingress network cannot be removed because service %s depends on it", s.ObjectName())
	}
	for _, ref := range []string{n.ID, n.Spec.Name} {
		if s := t.first(api.KindService, byNetwork, ref); s != nil {
			return api.Errorf(api.Invalid, "network %s is in use by service %s", n.Spec.Name, s.ObjectName())
		}
	}
	for _, live := range list[*api.Task](t.Txn, api.KindTask, byNetwork, n.ID) {
		if live.Wanted() && live.Standalone() {
			return api.Errorf(api.Invalid, "network %s is in use by container %s", n.Spec.Name, live.Name)
		}
		if live.Wanted() {
			return api.Errorf(api.Invalid, "network %s is in use by task %s", n.Spec.Name, live.ObjectID())
		}
	}
	return nil
}

func (t *txn) checkService(next *api.Service) error {
	if err := t.checkPorts(next); err != nil {
		return err
	}
	for _, v := range next.Endpoint.VirtualIPs {
		if err := t.checkAddress(next, v.NetworkID, v.Addr); err != nil {
			return err
		}
	}
	return nil
}

// checkPorts refuses a published port that another service has: in the routing
// mesh it is every node's, so it also collides with a port published on hosts.
func (t *txn) checkPorts(next *api.Service) error {
	check := func(p swarm.PortConfig) error {
		if p.PublishedPort == 0 {
			return nil
		}
		key := portKey(p)
		if err := t.portTaken(next, p, byIngressPort, key, "an ingress"); err != nil {
			return err
		}
		if publishMode(p) == swarm.PortConfigPublishModeIngress {
			return t.portTaken(next, p, byHostPort, key, "a host-published")
		}
		return nil
	}
	if next.Spec.EndpointSpec != nil {
		for _, p := range next.Spec.EndpointSpec.Ports {
			if err := check(p); err != nil {
				return err
			}
		}
	}
	for _, p := range next.Endpoint.Ports {
		if err := check(p); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) portTaken(next *api.Service, p swarm.PortConfig, index, key, how string) error {
	for _, raw := range list[*api.Service](t.Txn, api.KindService, index, key) {
		if raw.ID != next.ID {
			return api.Errorf(api.Invalid, "port '%d' is already in use by service '%s' (%s) as %s port",
				p.PublishedPort, raw.Spec.Name, raw.ID, how)
		}
	}
	return nil
}

// checkAddress refuses an address that another service or live task has.
func (t *txn) checkAddress(next api.Object, network string, addr netip.Prefix) error {
	if !addr.IsValid() {
		return nil
	}
	key := addressKey(network, addr.Addr())
	defer t.claim(key)
	for _, kind := range []api.Kind{api.KindService, api.KindTask} {
		if owner := t.addressOwner(kind, key); owner != nil && owner.ObjectID() != next.ObjectID() {
			return api.Errorf(api.Internal, "address %s of %s %s in network %s belongs to %s %s",
				addr.Addr(), next.ObjectKind(), next.ObjectID(), network, kind, owner.ObjectID())
		}
	}
	return t.checkReleased(next, network, addr.Addr(), key)
}

func (t *txn) claim(key string) {
	if t.claimed != nil {
		t.claimed[key] = true
	}
}

// checkTask looks at live tasks only: the others have given up their addresses.
func (t *txn) checkTask(next *api.Task) error {
	if !next.Alive() {
		return nil
	}
	for i := range next.NetworksAttachments {
		a := &next.NetworksAttachments[i]
		for _, addr := range a.Addresses {
			if err := t.checkAddress(next, a.Network.ID, addr); err != nil {
				return err
			}
		}
	}
	return nil
}

func notFound(kind api.Kind, ref string) error {
	return api.Errorf(api.NotFound, "%s %s not found", kind, ref)
}
