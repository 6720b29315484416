package store

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/go-memdb"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// txn is one Commit under way. Reading what a memdb transaction has written makes
// it copy again what it already had to itself, so the hot look-ups go to the state
// before the transaction, as far as that still holds.
type txn struct {
	*memdb.Txn
	// before is the state before; nil when a snapshot is loaded.
	before *memdb.Txn
	// touched holds the objects written so far, nil for a deleted one; claimed
	// the address keys they asked for.
	touched map[ref]api.Object
	claimed map[string]bool
	// retiring is set once something retired was written.
	retiring bool
	index    uint64
	now      time.Time
	changes  []Change
}

// ref names an object.
type ref struct {
	kind api.Kind
	id   string
}

func newTxn(db *memdb.MemDB, index uint64, now time.Time, ops int) *txn {
	return &txn{
		Txn: db.Txn(true), before: db.Txn(false), index: index, now: now.UTC().Round(0),
		touched: make(map[ref]api.Object, ops), claimed: map[string]bool{}, changes: make([]Change, 0, ops),
	}
}

// apply does one operation.
func (t *txn) apply(op api.Op) error {
	if op.Object == nil {
		return api.Errorf(api.Invalid, "%s operation without an object", op.Action)
	}
	if err := checkKeys(op.Object); err != nil {
		return err
	}
	old := t.get(op.Object.ObjectKind(), op.Object.ObjectID())
	if old != nil && op.IfVersion != 0 && old.ObjectMeta().Version.Index != op.IfVersion {
		return api.Errorf(api.OutOfSequence, "update out of sequence")
	}
	switch op.Action {
	case api.ActionCreate:
		return t.create(old, op.Object)
	case api.ActionUpdate:
		return t.update(old, op.Object)
	case api.ActionDelete:
		return t.delete(old)
	case api.ActionStatus:
		return t.status(old, op)
	case api.ActionRelease:
		return t.release(op.Object)
	}
	return api.Errorf(api.Invalid, "unknown action %q on %s %s", op.Action, op.Object.ObjectKind(), op.Object.ObjectID())
}

// checkKeys refuses ids and names that no index could hold.
func checkKeys(o api.Object) error {
	if o.ObjectID() == "" {
		return api.Errorf(api.Invalid, "%s without an id", o.ObjectKind())
	}
	if strings.Contains(o.ObjectID(), keyEnd) || strings.Contains(o.ObjectName(), keyEnd) {
		return api.Errorf(api.Invalid, "%s %q: a zero byte in its id or name", o.ObjectKind(), o.ObjectID())
	}
	return nil
}

func (t *txn) create(old, obj api.Object) error {
	if old != nil {
		return api.Errorf(api.Conflict, "id conflicts with an existing object: %s %s already exists", obj.ObjectKind(), obj.ObjectID())
	}
	next := shallow(obj)
	*next.ObjectMeta() = swarm.Meta{Version: swarm.Version{Index: t.index}, CreatedAt: t.now, UpdatedAt: t.now}
	switch next := next.(type) {
	case *api.Cluster:
		next.SpecVersion = next.Version
	case *api.Node:
		next.SpecVersion = next.Version
	case *api.Service:
		next.SpecVersion = next.Version
	}
	return t.put(nil, next)
}

func (t *txn) update(old, obj api.Object) error {
	if old == nil {
		return notFound(obj.ObjectKind(), obj.ObjectID())
	}
	next := shallow(obj)
	switch next := next.(type) {
	case *api.Task:
		keepStatus(old.(*api.Task), next)
	case *api.Cluster:
		old := old.(*api.Cluster)
		next.SpecVersion = t.specVersion(old.SpecVersion, sameSpec(&old.Spec, &next.Spec))
	case *api.Node:
		old := old.(*api.Node)
		next.SpecVersion = t.specVersion(old.SpecVersion, sameSpec(&old.Spec, &next.Spec))
	case *api.Service:
		t.specVersions(old.(*api.Service), next)
	}
	return t.put(old, t.stamp(old, next))
}

// stamp gives next the version of this transaction and the birthday of old.
func (t *txn) stamp(old, next api.Object) api.Object {
	*next.ObjectMeta() = swarm.Meta{
		Version: swarm.Version{Index: t.index}, CreatedAt: old.ObjectMeta().CreatedAt, UpdatedAt: t.now,
	}
	return next
}

// keepStatus puts back what a node has reported meanwhile: whoever updates a
// task may have read it before the report came.
func keepStatus(old, next *api.Task) {
	older := !next.Status.Timestamp.IsZero() && next.Status.Timestamp.Before(old.Status.Timestamp)
	rise := api.Rank(next.Status.State) - api.Rank(old.Status.State)
	if rise < 0 || rise == 0 && older {
		next.Status = old.Status
	}
	if next.StartedAt.IsZero() {
		next.StartedAt = old.StartedAt
	}
}

// specVersion is the version at which a spec last changed that was at old before.
func (t *txn) specVersion(old swarm.Version, same bool) swarm.Version {
	if same {
		return old
	}
	return swarm.Version{Index: t.index}
}

// specVersions sets the versions that tell which spec a task was made from.
func (t *txn) specVersions(old, next *api.Service) {
	same := sameSpec(&old.Spec, &next.Spec)
	next.SpecVersion = t.specVersion(old.SpecVersion, same)
	if !same && next.PreviousSpec != nil && sameSpec(next.PreviousSpec, &old.Spec) {
		next.PreviousSpecVersion = old.SpecVersion
	}
}

// sameSpec compares what Raft entries and snapshots carry of the specs, so that
// a manager that restored a snapshot decides like one that did not.
func sameSpec[T any](a, b *T) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	rawA, errA := json.Marshal(a)
	rawB, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(rawA, rawB)
}

func (t *txn) delete(old api.Object) error {
	if old == nil {
		return nil
	}
	if n, ok := old.(*api.Network); ok {
		if err := t.checkUnused(n); err != nil {
			return err
		}
	}
	if err := t.Txn.Delete(string(old.ObjectKind()), old); err != nil {
		return api.Errorf(api.Internal, "delete %s %s: %w", old.ObjectKind(), old.ObjectID(), err)
	}
	t.touched[ref{old.ObjectKind(), old.ObjectID()}] = nil
	t.changes = append(t.changes, Change{Old: old})
	if err := t.countRemoval(old); err != nil {
		return err
	}
	return t.retire(old, nil)
}

// countRemoval notes in the cluster that a node was removed, whoever removed it: the
// keys that it had are to be replaced.
func (t *txn) countRemoval(old api.Object) error {
	if old.ObjectKind() != api.KindNode {
		return nil
	}
	c, ok := t.first(api.KindCluster, byIDPrefix, "").(*api.Cluster)
	if !ok {
		return nil
	}
	next := *c
	next.Removals++
	return t.put(c, t.stamp(c, &next))
}

// put checks and stores next in the place of old, which is nil for a new object.
func (t *txn) put(old, next api.Object) error {
	if err := t.check(old, next); err != nil {
		return err
	}
	if err := t.Insert(string(next.ObjectKind()), next); err != nil {
		return api.Errorf(api.Internal, "store %s %s: %w", next.ObjectKind(), next.ObjectID(), err)
	}
	t.touched[ref{next.ObjectKind(), next.ObjectID()}] = next
	t.changes = append(t.changes, Change{Old: old, New: next})
	if old == nil {
		return nil
	}
	return t.retire(old, next)
}

// get returns the object with the id, nil without one.
func (t *txn) get(kind api.Kind, id string) api.Object {
	if o, ok := t.touched[ref{kind, id}]; ok {
		return o
	}
	return first(t.before, kind, byID, id)
}

// addressOwner returns who has the address now, nil for nobody.
func (t *txn) addressOwner(kind api.Kind, key string) api.Object {
	if t.before == nil || t.claimed[key] {
		return t.first(kind, byAddress, key)
	}
	owner := first(t.before, kind, byAddress, key)
	if owner == nil {
		return nil
	}
	if _, ok := t.touched[ref{kind, owner.ObjectID()}]; ok {
		return t.first(kind, byAddress, key)
	}
	return owner
}

// first reads by an index what the transaction sees.
func (t *txn) first(kind api.Kind, index, key string) api.Object {
	return first(t.Txn, kind, index, key)
}

// shallow copies the object but not what it points to, which is immutable.
func shallow(o api.Object) api.Object {
	switch o := o.(type) {
	case *api.Cluster:
		c := *o
		return &c
	case *api.Node:
		c := *o
		return &c
	case *api.Network:
		c := *o
		return &c
	case *api.Service:
		c := *o
		return &c
	case *api.Task:
		c := *o
		return &c
	case *api.Retired:
		c := *o
		return &c
	}
	return o.CopyObject()
}
