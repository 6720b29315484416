package dockerapi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// networkOf finds a network that a service asks for: one of the cluster, or one that
// every node has of its own. That an unknown one is answered with 500 is Docker's
// doing, and tools look for it.
func networkOf(v *store.View, ref string) (*api.Network, error) {
	if n := api.NodeNetwork(ref); n != nil {
		return n, nil
	}
	if isBridge(ref) {
		return nil, api.Errorf(api.Unimplemented, "services on the network bridge are not supported by this version: "+
			"leave out --network bridge, a service without networks has its tasks on a bridge of their node, with a way to the outside")
	}
	n, err := findNetwork(v, ref)
	if api.KindOf(err) == api.NotFound {
		return nil, api.Errorf(api.Internal, "network %s not found", ref)
	}
	return n, err
}

// ofTheNodes is a network of the nodes' own as one that services can be on: docker
// looks there for the id that it names the network by in a service (docker/cli,
// cli/command/service/opts.go). It is in no list. The bridge is told too, for the
// managers' answer to such a service says what to do instead. Any other name is
// missing.
func ofTheNodes(ref string, missing error) (network.Inspect, error) {
	if n := api.NodeNetwork(ref); n != nil {
		return showNetwork(n), nil
	}
	if !isBridge(ref) {
		return network.Inspect{}, missing
	}
	n := &api.Network{}
	n.ID, n.Spec.Name = api.NodeNetworkID(network.NetworkBridge), network.NetworkBridge
	n.Spec.DriverConfiguration = &swarm.Driver{Name: network.NetworkBridge}
	return showNetwork(n), nil
}

func isBridge(ref string) bool {
	return ref == network.NetworkBridge || ref == api.NodeNetworkID(network.NetworkBridge)
}

// predefine makes the nodes' own networks that the spec asks for known to the
// managers' state, where the first service that asks finds none.
func predefine(v *store.View, spec *swarm.ServiceSpec) (ops []api.Op) {
	for _, a := range spec.TaskTemplate.Networks {
		if n := api.NodeNetwork(a.Target); n != nil && v.Network(n.ID) == nil {
			ops = append(ops, api.Create(n))
		}
	}
	return ops
}

// predefines says whether the operations make a network of the nodes' own known.
func predefines(ops []api.Op) bool {
	return slices.ContainsFunc(ops, func(op api.Op) bool {
		n, is := op.Object.(*api.Network)
		return is && n.Predefined
	})
}

// nodeNetworkOf is the network of the nodes' own that the service is on, "" without.
func nodeNetworkOf(spec *swarm.ServiceSpec) string {
	for _, a := range spec.TaskTemplate.Networks {
		if n := api.NodeNetwork(a.Target); n != nil {
			return n.Spec.Name
		}
	}
	return ""
}

// checkNodeNetwork refuses what a service on host or none could not have: its tasks
// have no address that anybody could be sent to. Docker accepts most of it, and the
// tasks fail or nothing answers (moby, daemon/libnetwork/docs/spec/swarm-networking.md).
func checkNodeNetwork(v *store.View, spec *swarm.ServiceSpec) error {
	name := nodeNetworkOf(spec)
	if name == "" {
		return nil
	}
	var others []string
	for _, a := range spec.TaskTemplate.Networks {
		if n, err := networkOf(v, a.Target); err == nil && n.Spec.Name != name {
			others = append(others, n.Spec.Name)
		}
	}
	if len(others) > 0 {
		return api.Errorf(api.Invalid, "a service on the network %s is on no other, for %s: leave out --network %s, or %s",
			name, whyAlone[name], name, strings.Join(others, ", "))
	}
	if err := checkNodePorts(name, spec.EndpointSpec); err != nil {
		return err
	}
	return checkNodeSysctls(name, spec.TaskTemplate.ContainerSpec)
}

// whyAlone says why a network of the nodes' own goes with no other.
var whyAlone = map[string]string{
	api.NetworkHost: "its tasks have their node's own network, which Shoal adds no interface to",
	api.NetworkNone: "its tasks are to have no network",
}

// checkNodePorts takes a port of the host that is the one that the program listens
// on: nothing translates, but two such tasks are kept apart, and a task counts once
// it listens there.
func checkNodePorts(name string, e *swarm.EndpointSpec) error {
	if e == nil {
		return nil
	}
	for _, p := range e.Ports {
		switch asked := fmt.Sprintf("port %d", p.TargetPort); {
		case name == api.NetworkNone:
			return api.Errorf(api.Invalid, "%s cannot be published: nothing leads to tasks on the network none; leave out --publish or --network none", asked)
		case p.PublishMode != swarm.PortConfigPublishModeHost:
			return api.Errorf(api.Invalid, "%s cannot be published in ingress mode: the routing mesh sends to addresses of tasks, and tasks on the network host have none; "+
				"leave out --publish, for what they listen on is open on their node, or publish it with mode=host,published=%d", asked, p.TargetPort)
		case p.PublishedPort != p.TargetPort:
			return api.Errorf(api.Invalid, "%s cannot be published as another one: nothing is translated on the way to tasks on the network host; "+
				"leave out --publish, for what they listen on is open on their node, or say published=%d", asked, p.TargetPort)
		}
	}
	return nil
}

// checkNodeSysctls keeps the node's own settings as they are: those that begin with
// net belong to a network namespace, and runc sets none of the host's.
func checkNodeSysctls(name string, c *swarm.ContainerSpec) error {
	if name != api.NetworkHost || c == nil {
		return nil
	}
	for key := range c.Sysctls {
		if strings.HasPrefix(key, "net.") || strings.HasPrefix(key, "net/") {
			return api.Errorf(api.Invalid, "sysctl %s would be the node's own on the network host: set it on the nodes, and leave out --sysctl", key)
		}
	}
	return nil
}

// nodeNetworkWarnings say what has no effect on host or none.
func nodeNetworkWarnings(spec *swarm.ServiceSpec) (out []string) {
	name := nodeNetworkOf(spec)
	if name == "" {
		return nil
	}
	for _, a := range spec.TaskTemplate.Networks {
		if len(a.Aliases) > 0 {
			out = append(out, "aliases have no effect on the network "+name+": its tasks are in nobody's names")
		}
	}
	for label := range spec.Labels {
		if label == api.LabelPublish || strings.HasPrefix(label, api.LabelPublish+".") {
			out = append(out, "label "+label+" has no effect on the network "+name+": the program itself chooses the addresses that it listens on")
		}
	}
	slices.Sort(out)
	return out
}
