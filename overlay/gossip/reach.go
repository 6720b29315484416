package gossip

import (
	"context"
	"sync"

	"shoal/overlay/endpoint"
)

// reachKey names what one node has applied of one owner's writes.
type reachKey struct{ node, owner string }

// reach remembers how far a node has confirmed, and lets all who wait
// for one share a single request to it: many tasks that stop at once cost each
// member one stream.
type reach struct {
	mu  sync.Mutex
	got progress
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

type askFunc func(ctx context.Context, at endpoint.Position) (progress, error)

// wait returns nil once the node has reached at on the networks. One of those who
// wait asks for the next step the node takes, the others wait for its answer and then
// look again. A node that holds one of the networks back does not wait with its
// answer, so it is asked once and no more.
func (w *reach) wait(ctx context.Context, at endpoint.Position, networks []string, ask askFunc) error {
	asked := false
	for {
		w.mu.Lock()
		if w.got.covers(at, networks) {
			w.mu.Unlock()
			return nil
		}
		if ctx.Err() != nil || asked && !w.got.at.Before(at) {
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
		next := step(w.got.at, at)
		w.mu.Unlock()
		asked = true
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
	if err == nil && !got.at.Before(w.got.at) {
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
