package endpoint

import (
	"bytes"
	"maps"
	"slices"
	"sync"
)

const (
	// ownersMax bounds the owners a table holds; more are not accepted.
	ownersMax = 1 << 14
	// forgottenMax bounds the ids of removed owners that are remembered.
	forgottenMax = 1 << 16
)

// NodeKey is the key of the record a node writes about itself.
const NodeKey = "node"

// Table is one node's copy of all endpoint records. It is safe for concurrent use.
//
// # How copies agree
//
// An owner's writes are numbered 1, 2, 3, … within an epoch. What a copy knows of
// an owner is the set of numbers it has accounted for, either by the delta itself
// or by a Set, which accounts for all of 1..Done at once. Merging is the union of
// such sets, hence free of order and repetition, and the newest write known per
// key is shown. A hole in the numbers is a delta that was lost.
//
// # Why the dead stay dead without tombstones
//
// A delta or record whose number is accounted for is never looked at again. So once
// 1..n are accounted for, a deletion numbered up to n needs no tombstone: whatever
// could undo it has a lower number still. A Set tells of deletions by listing the
// numbers of what is alive. Tombstones live only beyond a hole, and go when the hole
// closes; no clock decides about them.
//
// # Epochs
//
// A daemon starts each time with an epoch one higher than the last (kept on disk).
// All a copy knows of an owner's lower epochs is void as soon as it hears of a
// higher one. Until the first write of the new epoch is accounted for a view goes
// on showing the old records, so an owner that uses Hold while it restores itself,
// and whose first state thus travels as one Set, changes over without a moment in
// which its endpoints are missing elsewhere.
type Table struct {
	self string

	mu     sync.Mutex
	owners map[string]*ownerState
	held   bool
	// before are the own records of an earlier run, until Open, see Remember.
	before  map[string]entry
	down    map[string]struct{}
	hints   map[string]Position
	gone    map[string]struct{}
	goneLog []string
	version uint64
	changed chan struct{}
	view    *View // of version, nil when stale
}

// New returns the table of the node self, whose own writes carry epoch (at least
// 1, higher than at the daemon's last start).
func New(self string, epoch uint64) *Table {
	epoch = min(max(epoch, 1), EpochMax)
	t := &Table{
		self: self, owners: map[string]*ownerState{}, down: map[string]struct{}{},
		hints: map[string]Position{}, gone: map[string]struct{}{}, changed: make(chan struct{}),
	}
	t.owners[self] = newOwnerState(epoch)
	return t
}

// Self is the id of the owner whose records this table writes.
func (t *Table) Self() string { return t.self }

// Hold keeps the own records from others until Open: they are in no digest and
// no set. A node that restores its tasks after a restart holds before its first
// Set, so that others exchange its old records for its new ones in one step.
func (t *Table) Hold() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = true
}

// Open ends Hold. Without Hold it does nothing. It always leaves at least one
// write behind, so that others void the records of earlier epochs even when
// there is nothing to say.
func (t *Table) Open() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.held {
		return
	}
	t.held, t.before = false, nil
	t.owners[t.self].view = nil
	if own := t.owners[t.self]; own.done == 0 {
		own.done = 1
	}
	t.bump()
}

// Held reports whether the own records are kept from others.
func (t *Table) Held() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held
}

// At is the position of the own last write.
func (t *Table) At() Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.owners[t.self]
	return Position{own.epoch, own.done}
}

// Set writes the own record key and returns it. A value equal to the present one
// is no new write: the present record is returned. The table keeps no reference
// to v's slices.
func (t *Table) Set(key string, v Value) Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.owners[t.self]
	r := Record{Owner: t.self, Key: key, Epoch: own.epoch, Seq: own.done + 1, Value: cloneValue(v)}
	if old, ok := own.live[key]; ok && bytes.Equal(appendValue(nil, old.rec.Value), appendValue(nil, v)) {
		return old.rec
	}
	t.forgetBefore(key)
	t.write(own, r)
	return r
}

// Remove deletes the own record key and returns the tombstone. ok is false, and
// nothing is written, when there is no such record.
func (t *Table) Remove(key string) (tombstone Record, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.owners[t.self]
	forgotten := t.forgetBefore(key)
	if _, ok := own.live[key]; !ok {
		if forgotten {
			t.bump()
		}
		return Record{}, false
	}
	r := Record{Owner: t.self, Key: key, Epoch: own.epoch, Seq: own.done + 1, Deleted: true}
	t.write(own, r)
	return r, true
}

func (t *Table) write(own *ownerState, r Record) {
	own.add(r)
	t.bump()
}

// Merge takes in deltas, in any order and any number of times, and returns those
// that were news. Records of the own node are never taken in: ones that the own
// node cannot have written in this epoch make it start a higher one (see Table.Diff).
func (t *Table) Merge(records []Record) (news []Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range records {
		if !r.valid() {
			continue
		}
		if r.Owner == t.self {
			t.outdo(r.At())
			continue
		}
		if o := t.owner(r.Owner, r.Epoch); o != nil && o.add(r) {
			news = append(news, r)
		}
	}
	if len(news) > 0 {
		t.bump()
	}
	return news
}

// MergeSets takes in sets, in any order and any number of times, and returns the
// records that were news. Sets that no table can have made are refused silently:
// a sound one comes from elsewhere.
func (t *Table) MergeSets(sets []Set) (news []Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := false
	for _, s := range sets {
		if !s.valid() {
			continue
		}
		if s.Owner == t.self {
			if d := s.digest(); s.Since == 0 {
				t.review(d)
			} else {
				t.outdo(Position{d.Epoch, d.Max})
			}
			continue
		}
		o := t.owner(s.Owner, s.Epoch)
		if o == nil {
			continue
		}
		got, any := o.merge(s)
		news, changed = append(news, got...), changed || any
	}
	if changed {
		t.bump()
	}
	return news
}

// owner finds or makes the state of an owner, nil when it is not to be kept.
func (t *Table) owner(id string, epoch uint64) *ownerState {
	if o, ok := t.owners[id]; ok {
		return o
	}
	if _, ok := t.gone[id]; ok || len(t.owners) >= ownersMax {
		return nil
	}
	o := newOwnerState(epoch)
	t.owners[id] = o
	return o
}

// outdo starts a higher epoch when others know own writes that this table has
// not made: the epoch on disk was lost, and theirs would win over ours.
func (t *Table) outdo(heard Position) {
	own := t.owners[t.self]
	if (Position{own.epoch, own.done}).Before(heard) && heard.Epoch < EpochMax {
		t.renumber(heard.Epoch + 1)
	}
}

// renumber writes all own records anew in a higher epoch.
func (t *Table) renumber(epoch uint64) {
	old := t.owners[t.self].live
	own := newOwnerState(epoch)
	for _, key := range slices.Sorted(maps.Keys(old)) {
		r := old[key].rec
		r.Epoch, r.Seq = epoch, own.done+1
		own.add(r)
	}
	own.done = max(own.done, 1)
	t.owners[t.self] = own
	t.bump()
}

// Forget drops all that is known of an owner that has been removed from the
// cluster, and takes nothing of it in again. Node ids are never used twice.
func (t *Table) Forget(owner string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.gone[owner]; ok || owner == t.self {
		return
	}
	t.gone[owner] = struct{}{}
	t.goneLog = append(t.goneLog, owner)
	if len(t.goneLog) > forgottenMax {
		delete(t.gone, t.goneLog[0])
		t.goneLog = t.goneLog[1:]
	}
	delete(t.owners, owner)
	delete(t.hints, owner)
	t.bump()
}

// Shows says whether views show what an owner wrote in its newest epoch, and that
// is the one given or a later one. They go on showing older writes until the first
// of the new epoch is accounted for.
func (t *Table) Shows(owner string, epoch uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.owners[owner]
	return o != nil && o.epoch >= epoch && o.done > 0
}

// Owners are the ids of all owners known, sorted.
func (t *Table) Owners() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.owners))
}

// SetDown says which owners are currently not reachable: all of them, each time.
// Their records stay; see View.Usable. It returns whether that is a change.
func (t *Table) SetDown(owners ...string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	down := make(map[string]struct{}, len(owners))
	for _, id := range owners {
		down[id] = struct{}{}
	}
	if maps.Equal(down, t.down) {
		return false
	}
	t.down = down
	t.bump()
	return true
}

// bump notes a change and wakes who waits for one.
func (t *Table) bump() {
	t.version++
	t.view = nil
	close(t.changed)
	t.changed = make(chan struct{})
}

// Changed returns a channel that is closed at the next change. Take it before
// the View it is to be compared with, then no change is missed.
func (t *Table) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}
