package store

import (
	"context"
	"errors"

	"shoal/control/api"
)

// Why a subscription ended before its context.
var (
	// ErrSlow: the reader fell further behind than its buffer.
	ErrSlow = errors.New("the reader of the store's changes is too slow")
	// ErrReplaced: the whole state was replaced by a snapshot.
	ErrReplaced = errors.New("the store's state was replaced by a snapshot")
)

// Change is what one operation did to one object. Old is nil for a new object,
// New for a deleted one; both are shared and must not be changed.
type Change struct {
	Old, New api.Object
}

// Kind returns the kind of the object.
func (c Change) Kind() api.Kind {
	if c.New != nil {
		return c.New.ObjectKind()
	}
	return c.Old.ObjectKind()
}

// Batch holds the changes of one commit, in the order of its operations.
type Batch struct {
	Index   uint64
	Changes []Change
	// Lost, in the last batch before the channel closes, says why the
	// subscription ended: ErrSlow or ErrReplaced. Subscribe again and start
	// over from a View.
	Lost error
}

type subscriber struct {
	ch   chan Batch
	stop func() bool
}

// Subscribe returns every commit's changes from now on, in order, until ctx
// ends; then the channel closes. It never holds up a commit: a reader that is
// more than buffer commits behind gets what is buffered, then a Batch with Lost
// set, then a closed channel.
//
// To follow the state without a gap: Subscribe, take a View, then skip the
// batches whose Index is not above the View's.
func (s *Store) Subscribe(ctx context.Context, buffer int) <-chan Batch {
	// One place more than offered, so that the last word always fits.
	sub := &subscriber{ch: make(chan Batch, max(buffer, 1)+1)}
	s.watch.Lock()
	defer s.watch.Unlock()
	s.watch.subs[sub] = struct{}{}
	sub.stop = context.AfterFunc(ctx, func() { s.unsubscribe(sub) })
	return sub.ch
}

func (s *Store) unsubscribe(sub *subscriber) {
	s.watch.Lock()
	defer s.watch.Unlock()
	if _, ok := s.watch.subs[sub]; ok {
		delete(s.watch.subs, sub)
		close(sub.ch)
	}
}

// offer sends the batch unless only the last place is free.
func (sub *subscriber) offer(b Batch) bool {
	if len(sub.ch) >= cap(sub.ch)-1 {
		return false
	}
	sub.ch <- b
	return true
}

// end sends the last word and closes the channel.
func (w *watch) end(sub *subscriber, last Batch) {
	delete(w.subs, sub)
	sub.stop()
	sub.ch <- last
	close(sub.ch)
}
