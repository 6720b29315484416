package dispatch

import (
	"reflect"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// key names an object.
type key struct {
	kind api.Kind
	id   string
}

func keyOf(obj api.Object) key { return key{obj.ObjectKind(), obj.ObjectID()} }

// trim returns what a node gets to see of an object: never a secret that is the
// managers', nothing that no node acts on. The result shares parts with obj.
func trim(obj api.Object) api.Object {
	switch o := obj.(type) {
	case *api.Cluster:
		return trimCluster(o)
	case *api.Node:
		return trimNode(o)
	case *api.Service:
		return trimService(o)
	}
	return obj
}

func trimCluster(c *api.Cluster) *api.Cluster {
	out := *c
	out.CAKey = nil
	out.JoinTokens = swarm.JoinTokens{}
	out.Spec.CAConfig.SigningCAKey = ""
	out.NextNodeNumber, out.Removals = 0, 0
	return &out
}

func trimNode(n *api.Node) *api.Node {
	out := &api.Node{Number: n.Number, DataPathAddr: n.DataPathAddr, RaftAddr: n.RaftAddr, DownSince: n.DownSince, Capabilities: n.Capabilities, Tunnel: n.Tunnel}
	out.Capabilities.Messages = nil // for people
	out.Tunnel.Settled = 0          // for managers
	out.ID, out.Meta = n.ID, n.Meta
	out.Spec = n.Spec
	out.Description.Hostname = n.Description.Hostname
	out.Status = n.Status
	out.ManagerStatus = n.ManagerStatus
	return out
}

func trimService(s *api.Service) *api.Service {
	out := &api.Service{SpecVersion: s.SpecVersion}
	out.ID, out.Meta = s.ID, s.Meta
	out.Spec.Annotations = s.Spec.Annotations
	out.Spec.Mode = s.Spec.Mode
	out.Spec.EndpointSpec = s.Spec.EndpointSpec
	out.Spec.TaskTemplate.Networks = s.Spec.TaskTemplate.Networks
	out.Endpoint = s.Endpoint
	return out
}

// same says whether two trimmed forms of an object mean the same to a node:
// versions and times do not count, and of a task's status, which the node itself
// reports, only whether the task is over.
func same(a, b api.Object) bool {
	return reflect.DeepEqual(essence(a), essence(b))
}

func essence(obj api.Object) api.Object {
	switch o := obj.(type) {
	case *api.Cluster:
		c := *o
		c.Meta = swarm.Meta{}
		return &c
	case *api.Node:
		n := *o
		n.Meta = swarm.Meta{}
		return &n
	case *api.Service:
		s := *o
		s.Meta = swarm.Meta{}
		return &s
	case *api.Network:
		n := *o
		n.Meta = swarm.Meta{}
		return &n
	case *api.Task:
		return taskEssence(o)
	}
	return obj
}

func taskEssence(o *api.Task) *api.Task {
	t := *o
	t.Meta = swarm.Meta{}
	t.StartedAt = swarm.TaskStatus{}.Timestamp
	t.Status = swarm.TaskStatus{}
	if api.Terminal(o.Status.State) {
		t.Status.State = swarm.TaskStateShutdown
	}
	return &t
}

// tombstone returns an object of the kind with nothing but its id, for a delete.
func tombstone(k key) api.Object {
	switch k.kind {
	case api.KindCluster:
		c := &api.Cluster{}
		c.ID = k.id
		return c
	case api.KindNode:
		n := &api.Node{}
		n.ID = k.id
		return n
	case api.KindService:
		s := &api.Service{}
		s.ID = k.id
		return s
	case api.KindNetwork:
		n := &api.Network{}
		n.ID = k.id
		return n
	default:
		t := &api.Task{}
		t.ID = k.id
		return t
	}
}
