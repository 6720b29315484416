package api

import "github.com/moby/moby/api/types/swarm"

// Networks that every node has of its own, and that services can be on. Docker's
// API knows them by these names (moby, api/types/network: NetworkHost, NetworkNone).
const (
	NetworkHost = "host" // the node's own network namespace
	NetworkNone = "none" // a namespace with nothing but the loopback link
)

// PredefinedLabel marks such a network where Docker's tools look for it (moby,
// daemon/cluster/executor/container/container.go).
const PredefinedLabel = "com.docker.swarm.predefined"

// NodeNetworkID is the id of a network that every node has of its own. It is the
// same on all nodes, so that what one manager tells a client all of them take.
func NodeNetworkID(name string) string { return "shoal" + name }

// NodeNetwork returns the network that services can be on and that ref names, by
// name or by id; nil when ref is no such network. The managers' state has it once
// the first service asked for it.
func NodeNetwork(ref string) *Network {
	drivers := map[string]string{NetworkHost: "host", NetworkNone: "null"}
	for name, driver := range drivers {
		if ref != name && ref != NodeNetworkID(name) {
			continue
		}
		n := &Network{Predefined: true}
		n.ID = NodeNetworkID(name)
		n.Spec.Name, n.Spec.Labels = name, map[string]string{PredefinedLabel: "true"}
		n.Spec.Scope = "local"
		n.Spec.DriverConfiguration = &swarm.Driver{Name: driver}
		n.DriverState = swarm.Driver{Name: driver}
		return n
	}
	return nil
}

// OnHost says whether the task runs in its node's own network namespace.
func (t *Task) OnHost() bool { return t.on(NetworkHost) }

// OnNone says whether the task has a network namespace that leads nowhere.
func (t *Task) OnNone() bool { return t.on(NetworkNone) }

func (t *Task) on(name string) bool {
	for i := range t.NetworksAttachments {
		if t.NetworksAttachments[i].Network.ID == NodeNetworkID(name) {
			return true
		}
	}
	return false
}
