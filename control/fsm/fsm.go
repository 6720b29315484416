// Package fsm is the Raft state machine: it turns committed log entries into
// commits on a store, and the store into Raft snapshots. It owns the format of a
// log entry.
//
// It has no clock and no randomness and looks at nothing but the entry and the
// store, so that managers with equal logs hold byte-equal state.
package fsm

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"shoal/control/store"
)

// FSM is a raft.FSM. Raft calls Apply, Snapshot and Restore from one goroutine.
type FSM struct {
	store *store.Store
}

// New returns the state machine that writes to s; nothing else may write to it.
func New(s *store.Store) *FSM { return &FSM{store: s} }

// Apply commits the command in the entry. It returns nil, or the api.Error with
// which the store refused it.
//
// It panics on an entry that it cannot decode: the others may have understood
// it, and to go on without it would be to hold another state than they do.
func (f *FSM) Apply(entry *raft.Log) any {
	command, err := Decode(entry.Data)
	if err != nil {
		panic(fmt.Sprintf("fsm: log entry %d cannot be followed, is this version too old or the log damaged? %v", entry.Index, err))
	}
	if err := f.store.Commit(entry.Index, command.Now, command.Ops); err != nil {
		return err
	}
	return nil
}

// Snapshot captures the present state; it is written later, while Apply goes on.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) { return snapshot{f.store.View()}, nil }

// Restore replaces the state by a snapshot.
func (f *FSM) Restore(r io.ReadCloser) error {
	defer r.Close()
	return f.store.Restore(r)
}

// snapshot is a raft.FSMSnapshot.
type snapshot struct{ view *store.View }

// Persist writes the snapshot, or cancels the sink.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.view.Save(sink); err != nil {
		return fmt.Errorf("snapshot %s: %w", sink.ID(), cancel(sink, err))
	}
	return sink.Close()
}

func cancel(sink raft.SnapshotSink, cause error) error {
	if err := sink.Cancel(); err != nil {
		return fmt.Errorf("%w (and cancelling it: %w)", cause, err)
	}
	return cause
}

// Release has nothing to free.
func (s snapshot) Release() {}
