package gossip

import (
	"context"
	"sync"

	"shoal/overlay/endpoint"
)

// reachKey names what one node has applied of one owner's writes.
type reachKey struct{ node, owner string }

// reach remembers the furthest position a node has confirmed, and lets all who wait
// for one share a single request to it: many tasks that stop at once cost each
// member one stream.
type reach struct {
	mu  sync.Mutex
	got endpoint.Position
	// asking is closed when the request under way has ended, nil when none is.
	asking chan struct{}
}

// reachMax bounds what is remembered; beyond it everything is asked again.
const reachMax = 4096

func (g *Gossip) watch(key reachKey) *reach {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.reached[key]
	if w == nil {
		if len(g.reached) >= reachMax {
			clear(g.reached)
		}
		w = &reach{}
		g.reached[key] = w
	}
	return w
}

type askFunc func(ctx context.Context, at endpoint.Position) (endpoint.Position, error)

// wait returns nil once the node has reached at. One of those who wait asks for the
// next step the node takes, the others wait for its answer and then look again.
func (w *reach) wait(ctx context.Context, at endpoint.Position, ask askFunc) error {
	for {
		w.mu.Lock()
		if !w.got.Before(at) {
			w.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil {
			w.mu.Unlock()
			return errNotApplied
		}
		if busy := w.asking; busy != nil {
			w.mu.Unlock()
			select {
			case <-busy:
			case <-ctx.Done():
			}
			continue
		}
		w.asking = make(chan struct{})
		next := step(w.got, at)
		w.mu.Unlock()
		if err := w.lead(ctx, next, ask); err != nil {
			return err
		}
	}
}

// lead makes the one request and wakes the others.
func (w *reach) lead(ctx context.Context, next endpoint.Position, ask askFunc) error {
	got, err := ask(ctx, next)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && w.got.Before(got) {
		w.got = got
	}
	close(w.asking)
	w.asking = nil
	return err
}

// step is the earliest position after got that is worth an answer on the way to at:
// someone else may be waiting for less than at.
func step(got, at endpoint.Position) endpoint.Position {
	if got.Epoch == at.Epoch && got.Seq < at.Seq {
		return endpoint.Position{Epoch: at.Epoch, Seq: got.Seq + 1}
	}
	return at
}
