package store

import (
	"fmt"

	"github.com/hashicorp/go-memdb"

	"shoal/control/api"
)

// View is the state at one moment. It never changes, and what it returns is
// shared with all other readers: never change it, Copy first. Lists are sorted
// by id. A missing object is nil.
type View struct {
	txn   *memdb.Txn
	index uint64
}

// Index is the Raft index of the last command before the view, 0 for none.
// Commands that were refused count.
func (v *View) Index() uint64 { return v.index }

// Cluster returns the cluster object, nil before the cluster is made.
func (v *View) Cluster() *api.Cluster { return one[*api.Cluster](v, api.KindCluster, byIDPrefix, "") }

// Node returns the node with the id.
func (v *View) Node(id string) *api.Node { return one[*api.Node](v, api.KindNode, byID, id) }

// Nodes returns every node.
func (v *View) Nodes() []*api.Node { return all[*api.Node](v, api.KindNode) }

// NodesByHostname returns the nodes with the host name, which need not be unique.
func (v *View) NodesByHostname(name string) []*api.Node {
	return list[*api.Node](v.txn, api.KindNode, byHostname, name)
}

// Service returns the service with the id.
func (v *View) Service(id string) *api.Service {
	return one[*api.Service](v, api.KindService, byID, id)
}

// ServiceByName returns the service with exactly that name.
func (v *View) ServiceByName(name string) *api.Service {
	return one[*api.Service](v, api.KindService, byName, name)
}

// Services returns every service.
func (v *View) Services() []*api.Service { return all[*api.Service](v, api.KindService) }

// ServicesByNetwork returns the services whose spec or virtual IPs refer to the
// network with the id; a spec may refer to it by name.
func (v *View) ServicesByNetwork(id string) []*api.Service {
	found := list[*api.Service](v.txn, api.KindService, byNetwork, id)
	n := v.Network(id)
	if n == nil || n.Spec.Name == "" || n.Spec.Name == id {
		return found
	}
	return union(found, list[*api.Service](v.txn, api.KindService, byNetwork, n.Spec.Name))
}

// Task returns the task with the id.
func (v *View) Task(id string) *api.Task { return one[*api.Task](v, api.KindTask, byID, id) }

// Tasks returns every task, history included.
func (v *View) Tasks() []*api.Task { return all[*api.Task](v, api.KindTask) }

// TasksByService returns the tasks of the service with the id.
func (v *View) TasksByService(id string) []*api.Task {
	return list[*api.Task](v.txn, api.KindTask, byService, id)
}

// TasksByNode returns the tasks given to the node with the id.
func (v *View) TasksByNode(id string) []*api.Task {
	return list[*api.Task](v.txn, api.KindTask, byNode, id)
}

// Network returns the network with the id.
func (v *View) Network(id string) *api.Network {
	return one[*api.Network](v, api.KindNetwork, byID, id)
}

// NetworkByName returns the network with exactly that name.
func (v *View) NetworkByName(name string) *api.Network {
	return one[*api.Network](v, api.KindNetwork, byName, name)
}

// Networks returns every network.
func (v *View) Networks() []*api.Network { return all[*api.Network](v, api.KindNetwork) }

// Retired returns everything that was given up and is not free yet.
func (v *View) Retired() []*api.Retired { return all[*api.Retired](v, api.KindRetired) }

// StandaloneTasks returns the tasks that are no service's.
func (v *View) StandaloneTasks() []*api.Task {
	return list[*api.Task](v.txn, api.KindTask, byStandalone, standaloneKey)
}

// TasksByNetwork returns the live tasks that are attached to the network with the id.
func (v *View) TasksByNetwork(id string) []*api.Task {
	return list[*api.Task](v.txn, api.KindTask, byNetwork, id)
}

// NetworkHasTasks says whether there are any.
func (v *View) NetworkHasTasks(id string) bool {
	return first(v.txn, api.KindTask, byNetwork, id) != nil
}

// RemovedNetwork returns the network with the id that was removed and is not
// free yet.
func (v *View) RemovedNetwork(id string) *api.Network {
	if r := one[*api.Retired](v, api.KindRetired, byNetwork, id); r != nil {
		return r.Network
	}
	return nil
}

// first returns the first object under the key, nil without one. It panics on
// a table or index that the schema does not have.
func first(txn *memdb.Txn, kind api.Kind, index, key string) api.Object {
	raw, err := txn.First(string(kind), index, key)
	if err != nil {
		panic(fmt.Sprintf("store: read %s by %s: %v", kind, index, err))
	}
	if raw == nil {
		return nil
	}
	return raw.(api.Object)
}

// one is first with the type of the kind.
func one[T api.Object](v *View, kind api.Kind, index, key string) T {
	found, _ := first(v.txn, kind, index, key).(T)
	return found
}

// list returns the objects under the key, sorted by id.
func list[T api.Object](txn *memdb.Txn, kind api.Kind, index, key string) []T {
	rows, err := txn.Get(string(kind), index, key)
	if err != nil {
		panic(fmt.Sprintf("store: list %s by %s: %v", kind, index, err))
	}
	var out []T
	for raw := rows.Next(); raw != nil; raw = rows.Next() {
		out = append(out, raw.(T))
	}
	return out
}

func all[T api.Object](v *View, kind api.Kind) []T {
	return list[T](v.txn, kind, byIDPrefix, "")
}

// union merges two lists sorted by id into one without doubles.
func union[T api.Object](a, b []T) []T {
	out := make([]T, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch idA, idB := a[0].ObjectID(), b[0].ObjectID(); {
		case idA < idB:
			out, a = append(out, a[0]), a[1:]
		case idA > idB:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}
