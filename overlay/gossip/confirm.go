package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"shoal/overlay/endpoint"
)

// confirmsMax bounds the requests that one Confirm has under way.
const confirmsMax = 32

var errNotApplied = errors.New("not yet applied")

// Confirm waits until every live member, the own node included, has applied the
// write that made r, or a later one of its owner, to its kernel (see SetApplied), as
// far as it concerns r's networks: all of them when r is a tombstone. A member that fails or leaves meanwhile is no longer waited for, one that
// appears is. When ctx ends first, missing names the nodes, sorted, that have not
// said so, and err wraps ctx's error.
func (g *Gossip) Confirm(ctx context.Context, r endpoint.Record) (missing []string, err error) {
	confirmed := map[string]bool{}
	for {
		missing = g.unconfirmed(confirmed)
		if len(missing) == 0 {
			return nil, nil
		}
		for _, id := range g.askApplied(ctx, missing, r) {
			confirmed[id] = true
		}
		missing = g.unconfirmed(confirmed)
		if len(missing) == 0 {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return missing, fmt.Errorf("confirm record %s of node %s on %d nodes: %w", r.Key, r.Owner, len(missing), context.Cause(ctx))
		case <-g.ctx.Done():
			return missing, fmt.Errorf("confirm record %s of node %s: gossip is shut down", r.Key, r.Owner)
		case <-g.after(jitter(g.pace.GossipInterval)):
		}
	}
}

func (g *Gossip) unconfirmed(confirmed map[string]bool) []string {
	ids := append(slices.Collect(maps.Keys(g.others())), g.cfg.NodeID)
	ids = slices.DeleteFunc(ids, func(id string) bool { return confirmed[id] })
	slices.Sort(ids)
	return ids
}

// askApplied asks the nodes at the same time and returns those that have applied r.
func (g *Gossip) askApplied(ctx context.Context, ids []string, r endpoint.Record) (done []string) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, confirmsMax)
	for _, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if g.askAppliedOne(ctx, id, r) == nil {
				mu.Lock()
				done = append(done, id)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return done
}

// askAppliedOne waits up to half a StreamTimeout for one node to reach r.
func (g *Gossip) askAppliedOne(ctx context.Context, id string, r endpoint.Record) error {
	ctx, cancel := context.WithTimeout(ctx, g.pace.StreamTimeout/2)
	defer cancel()
	networks := concerned(r)
	if id == g.cfg.NodeID {
		if !g.waitApplied(ctx, r.Owner, r.At(), networks).covers(r.At(), networks) {
			return errNotApplied
		}
		return nil
	}
	return g.watch(reachKey{id, r.Owner}).wait(ctx, r.At(), networks, func(ctx context.Context, at endpoint.Position) (progress, error) {
		return g.askReached(ctx, id, r.Owner, at)
	})
}

// askReached asks a node how far it has applied an owner's writes; the node
// answers once that is at or past at but for networks that it holds back, or after
// a quarter of a StreamTimeout.
func (g *Gossip) askReached(ctx context.Context, id, owner string, at endpoint.Position) (progress, error) {
	req := appliedRequest{Owner: owner, At: at, Wait: g.pace.StreamTimeout / 4}
	kind, body, err := g.call(ctx, id, kindApplied, req.encode())
	if err != nil {
		return progress{}, err
	}
	got, err := decodeProgress(body)
	if err != nil || kind != kindReached {
		return progress{}, errors.Join(errFrame, err)
	}
	return got, nil
}
