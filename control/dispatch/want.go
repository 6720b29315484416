package dispatch

import (
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// wants is what one node is to know of tasks, networks and services. Nodes and
// the cluster go to everybody.
type wants struct {
	objects  map[key]api.Object
	networks map[string]bool
}

// wantsOf costs as much as the node's tasks and the services it must reach.
// mesh holds the ids of all services with a port in the routing mesh, ingress
// that of the ingress network, "" without one.
func wantsOf(view *store.View, nodeID string, mesh map[string]bool, ingress string) wants {
	w := wants{objects: map[key]api.Object{}, networks: map[string]bool{}}
	if ingress != "" {
		w.networks[ingress] = true
	}
	for _, task := range view.TasksByNode(nodeID) {
		if !needed(task) {
			continue
		}
		w.add(task)
		for i := range task.NetworksAttachments {
			w.networks[task.NetworksAttachments[i].Network.ID] = true
		}
	}
	for id := range w.networks {
		if network := networkOf(view, id); network != nil {
			w.add(network)
		}
		for _, service := range view.ServicesByNetwork(id) {
			w.add(service)
		}
	}
	for id := range mesh {
		if service := view.Service(id); service != nil {
			w.add(service)
		}
	}
	return w
}

// networkOf returns a network, also one that was removed while tasks that are
// about to stop still work on it; nil without one.
func networkOf(view *store.View, id string) *api.Network {
	if n := view.Network(id); n != nil {
		return n
	}
	return view.RemovedNetwork(id)
}

func (w wants) add(obj api.Object) { w.objects[keyOf(obj)] = obj }

// needed says whether the node has anything to do for the task: one that the
// scheduler has not admitted is not the node's yet (a global service's task names
// its node from birth), and one that is over and not wanted is history.
func needed(t *api.Task) bool {
	return api.Rank(t.Status.State) >= api.Rank(swarm.TaskStateAssigned) && (t.Wanted() || t.Alive())
}

// published says whether the service has a port in the routing mesh.
func published(s *api.Service) bool {
	if s.Spec.EndpointSpec == nil {
		return false
	}
	for _, port := range s.Spec.EndpointSpec.Ports {
		if port.PublishMode != swarm.PortConfigPublishModeHost {
			return true
		}
	}
	return false
}

// uses says whether the service is attached to one of the networks.
func uses(s *api.Service, networks map[string]bool, names map[string]string) bool {
	for _, target := range s.Spec.TaskTemplate.Networks {
		if networks[target.Target] || networks[names[target.Target]] {
			return true
		}
	}
	for _, vip := range s.Endpoint.VirtualIPs {
		if networks[vip.NetworkID] {
			return true
		}
	}
	return false
}
