package store

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-memdb"

	"shoal/control/api"
)

// Store is the cluster's state on one manager. All methods may be called from
// any goroutine; Commit and Restore are meant for the state machine alone.
type Store struct {
	// writing lets one Commit or Restore in at a time.
	writing sync.Mutex
	db      *memdb.MemDB
	view    atomic.Pointer[View]
	watch   watch
}

// New returns an empty store at index 0.
func New() *Store {
	s := &Store{db: newDB(), watch: newWatch()}
	s.view.Store(&View{txn: s.db.Txn(false)})
	return s
}

// newDB makes the tables. A snapshot of a memdb can be written like the memdb
// itself but keeps no watch channels, which this package does not use and which
// would make a big transaction compare whole trees.
func newDB() *memdb.MemDB {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		panic("store: the schema is wrong: " + err.Error())
	}
	return db.Snapshot()
}

// Commit applies the operations in order as one transaction: all of them, or
// none and an api.Error that says which was refused and why. The objects become
// the store's: what they point to must not change any more.
//
// index is the Raft index of the operations, above every earlier one; it becomes
// the version of what they touch, and the store's index even when they are
// refused. now becomes their time. The cost of an operation depends on the
// object, not on how many there are.
func (s *Store) Commit(index uint64, now time.Time, ops []api.Op) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if have := s.View().Index(); index <= have {
		return api.Errorf(api.Internal, "commit of index %d after index %d", index, have)
	}
	t := newTxn(s.db, index, now, len(ops))
	for _, op := range ops {
		if err := t.apply(op); err != nil {
			t.Abort()
			s.publish(index, nil)
			return err
		}
	}
	t.Txn.Commit()
	s.publish(index, t.changes)
	return nil
}

// publish makes what was committed the current view and wakes those who wait.
func (s *Store) publish(index uint64, changes []Change) {
	view := &View{txn: s.db.Txn(false), index: index}
	s.watch.publish(func() { s.view.Store(view) }, index, changes)
}

// View returns the state after the last commit. It is free and never blocks.
func (s *Store) View() *View { return s.view.Load() }
