package leader

import (
	"encoding/json"

	"shoal/control/api"
	"shoal/control/store"
)

// id names an object of any kind.
type id struct {
	kind api.Kind
	id   string
}

func idOf(o api.Object) id { return id{o.ObjectKind(), o.ObjectID()} }

// draft is a view with decisions that are not committed yet: each planner sees
// what those before it decided, and what they did to one object becomes one
// operation. A service that is created, given addresses and placed so costs one
// commit.
type draft struct {
	*store.View
	ops   map[id]api.Op
	order []id
	// born has the new tasks of each service.
	born map[string][]string
}

func newDraft(v *store.View) *draft {
	return &draft{View: v, ops: map[id]api.Op{}, born: map[string][]string{}}
}

// add makes the operation part of the draft.
func (d *draft) add(op api.Op) {
	k := idOf(op.Object)
	before, known := d.ops[k]
	if !known {
		d.order = append(d.order, k)
		if t, ok := op.Object.(*api.Task); ok && op.Action == api.ActionCreate {
			d.born[t.ServiceID] = append(d.born[t.ServiceID], t.ID)
		}
	}
	switch {
	case known && before.Action == api.ActionCreate && op.Action == api.ActionUpdate:
		op.Action, op.IfVersion = api.ActionCreate, 0
	case known && op.Action == api.ActionUpdate && op.IfVersion == 0:
		op.IfVersion = before.IfVersion
	}
	d.ops[k] = op
}

// list returns the operations in the order in which their objects were first
// touched. Something created and deleted again never was.
func (d *draft) list() []api.Op {
	ops := make([]api.Op, 0, len(d.order))
	for _, k := range d.order {
		op := d.ops[k]
		if op.Action == api.ActionDelete && !d.stored(k) {
			continue
		}
		ops = append(ops, op)
	}
	return ops
}

func (d *draft) stored(k id) bool {
	return k.kind != api.KindTask || d.View.Task(k.id) != nil
}

// Cluster returns the cluster as drafted.
func (d *draft) Cluster() *api.Cluster {
	stored := d.View.Cluster()
	if stored == nil {
		return nil
	}
	if op, ok := d.ops[idOf(stored)]; ok {
		c, _ := now(op).(*api.Cluster)
		return c
	}
	return stored
}

// Service returns the service as drafted.
func (d *draft) Service(serviceID string) *api.Service {
	if op, ok := d.ops[id{api.KindService, serviceID}]; ok {
		s, _ := now(op).(*api.Service)
		return s
	}
	return d.View.Service(serviceID)
}

// TasksByService returns the service's tasks as drafted.
func (d *draft) TasksByService(serviceID string) []*api.Task {
	stored := d.View.TasksByService(serviceID)
	tasks := make([]*api.Task, 0, len(stored)+len(d.born[serviceID]))
	for _, t := range stored {
		if op, ok := d.ops[id{api.KindTask, t.ID}]; ok {
			t, _ = now(op).(*api.Task)
		}
		if t != nil {
			tasks = append(tasks, t)
		}
	}
	for _, taskID := range d.born[serviceID] {
		if t, _ := now(d.ops[id{api.KindTask, taskID}]).(*api.Task); t != nil {
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// now is the object after the operation, nil when it is gone.
func now(op api.Op) api.Object {
	if op.Action == api.ActionDelete {
		return nil
	}
	return op.Object
}

// split cuts operations into proposals of bounded number and size.
func split(ops []api.Op) [][]api.Op {
	var batches [][]api.Op
	sizes := sizes{}
	from, bytes := 0, 0
	for i, op := range ops {
		size := sizes.of(op)
		if i > from && (i-from == maxBatchOps || bytes+size > maxBatchBytes) {
			batches = append(batches, ops[from:i])
			from, bytes = i, 0
		}
		bytes += size
	}
	return append(batches, ops[from:])
}

// sizes knows how long one task of each service is when written: the others of
// the service are taken to be as long.
type sizes map[string]int

func (s sizes) of(op api.Op) int {
	t, isTask := op.Object.(*api.Task)
	if isTask && s[t.ServiceID] > 0 {
		return s[t.ServiceID]
	}
	raw, err := json.Marshal(op)
	if err != nil {
		return maxBatchBytes
	}
	if isTask {
		s[t.ServiceID] = len(raw)
	}
	return len(raw)
}

// apart cuts operations into one proposal for each service, with its tasks, and
// one for each other object, within the bounds of split.
func apart(ops []api.Op) [][]api.Op {
	shares := map[id][]api.Op{}
	var order []id
	for _, op := range ops {
		k := idOf(op.Object)
		if t, ok := op.Object.(*api.Task); ok && t.ServiceID != "" {
			k = id{api.KindService, t.ServiceID}
		}
		if shares[k] == nil {
			order = append(order, k)
		}
		shares[k] = append(shares[k], op)
	}
	var batches [][]api.Op
	for _, k := range order {
		batches = append(batches, split(shares[k])...)
	}
	return batches
}
