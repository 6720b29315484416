package store

import (
	"container/heap"
	"context"
	"sync"

	"shoal/control/api"
)

// watch wakes those who wait for commits. Nothing here ever blocks a commit.
type watch struct {
	sync.Mutex
	// changed has one channel per set of kinds somebody waits for.
	changed map[kindSet]chan struct{}
	subs    map[*subscriber]struct{}
	waits   waits
}

func newWatch() watch {
	return watch{changed: map[kindSet]chan struct{}{}, subs: map[*subscriber]struct{}{}}
}

// kindSet is a set of kinds as bits.
type kindSet uint8

const allKinds = ^kindSet(0)

func setOf(kind api.Kind) kindSet {
	for i, k := range api.Kinds {
		if k == kind {
			return 1 << i
		}
	}
	return 0
}

// Changed returns a channel that is closed at the next commit that changes an
// object of one of the kinds, of any kind without arguments, and when the state
// is replaced. Take it before the View: then no change is missed between them.
func (s *Store) Changed(kinds ...api.Kind) <-chan struct{} {
	set := allKinds
	if len(kinds) > 0 {
		set = 0
		for _, k := range kinds {
			set |= setOf(k)
		}
	}
	s.watch.Lock()
	defer s.watch.Unlock()
	ch := s.watch.changed[set]
	if ch == nil {
		ch = make(chan struct{})
		s.watch.changed[set] = ch
	}
	return ch
}

// WaitIndex returns nil once the store's index is at least index, else the
// context's error.
func (s *Store) WaitIndex(ctx context.Context, index uint64) error {
	s.watch.Lock()
	if s.View().Index() >= index {
		s.watch.Unlock()
		return nil
	}
	w := &wait{index: index, done: make(chan struct{})}
	heap.Push(&s.watch.waits, w)
	s.watch.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		s.watch.Lock()
		defer s.watch.Unlock()
		if w.place >= 0 {
			heap.Remove(&s.watch.waits, w.place)
			return ctx.Err()
		}
		return nil
	}
}

// publish calls swap and tells all watchers about the changes.
func (w *watch) publish(swap func(), index uint64, changes []Change) {
	w.Lock()
	defer w.Unlock()
	swap()
	w.wake(touched(changes))
	w.reach(index)
	if len(changes) == 0 {
		return
	}
	for sub := range w.subs {
		if !sub.offer(Batch{Index: index, Changes: changes}) {
			w.end(sub, Batch{Index: index, Lost: ErrSlow})
		}
	}
}

// replace calls swap and sends every watcher back to the start.
func (w *watch) replace(swap func(), index uint64) {
	w.Lock()
	defer w.Unlock()
	swap()
	w.wake(allKinds)
	w.reach(index)
	for sub := range w.subs {
		w.end(sub, Batch{Index: index, Lost: ErrReplaced})
	}
}

func touched(changes []Change) (set kindSet) {
	for i := range changes {
		set |= setOf(changes[i].Kind())
	}
	return set
}

func (w *watch) wake(kinds kindSet) {
	for set, ch := range w.changed {
		if set&kinds != 0 {
			close(ch)
			delete(w.changed, set)
		}
	}
}

// reach releases those who wait for an index up to this one.
func (w *watch) reach(index uint64) {
	for len(w.waits) > 0 && w.waits[0].index <= index {
		close(heap.Pop(&w.waits).(*wait).done)
	}
}

// wait is one WaitIndex; place is where it stands in the heap, -1 once out.
type wait struct {
	index uint64
	place int
	done  chan struct{}
}

// waits is a heap, the lowest index on top.
type waits []*wait

func (h waits) Len() int           { return len(h) }
func (h waits) Less(i, j int) bool { return h[i].index < h[j].index }
func (h waits) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is for container/heap.
func (h *waits) Push(x any) {
	w := x.(*wait)
	w.place = len(*h)
	*h = append(*h, w)
}

// Pop is for container/heap.
func (h *waits) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	w.place = -1
	return w
}
