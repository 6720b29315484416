package gossip

import (
	"context"
	"slices"

	"shoal/overlay/endpoint"
)

// Own stands for the node's own namespace in SetApplied: it holds back the node's own
// records only, and from the node itself.
const Own = ""

// progress is how far a node has put one owner's writes into effect.
type progress struct {
	// at counts for all networks but those in held, which are behind.
	at   endpoint.Position
	held map[string]endpoint.Position
}

// covers says whether a write is in effect that concerns the networks; nil stands for
// all of them.
func (p progress) covers(at endpoint.Position, networks []string) bool {
	if p.at.Before(at) {
		return false
	}
	for network, held := range p.held {
		concerned := networks == nil || network == Own || slices.Contains(networks, network)
		if concerned && held.Before(at) {
			return false
		}
	}
	return true
}

// concerned lists the networks that a record is about, never nil for one that says
// so, and nil, which is all, for a tombstone.
func concerned(r endpoint.Record) []string {
	if r.Deleted {
		return nil
	}
	networks := make([]string, 0, len(r.Value.Attachments))
	for _, a := range r.Value.Attachments {
		networks = append(networks, a.NetworkID)
	}
	return networks
}

// SetApplied says that the node's kernel has been brought in line with the view, but
// for what concerns the networks in held, or Own: there it is as it was told last.
func (g *Gossip) SetApplied(v *endpoint.View, held ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before, older := g.applied, g.held
	g.applied, g.held = v, make(map[string]*endpoint.View, len(held))
	for _, network := range held {
		g.held[network] = before // nil when nothing was ever applied
		if view, still := older[network]; still {
			g.held[network] = view
		}
	}
	close(g.appliedWake)
	g.appliedWake = make(chan struct{})
}

// progressOf returns how far the owner's writes are applied here, and what is closed
// at the next change of that. g.mu must not be held.
func (g *Gossip) progressOf(owner string) (progress, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := func(v *endpoint.View) endpoint.Position {
		if v == nil {
			return endpoint.Position{}
		}
		return v.At(owner)
	}
	p := progress{at: at(g.applied)}
	for network, view := range g.held {
		if then := at(view); then.Before(p.at) && (network != Own || owner == g.cfg.NodeID) {
			if p.held == nil {
				p.held = map[string]endpoint.Position{}
			}
			p.held[network] = then
		}
	}
	return p, g.appliedWake
}

// waitApplied returns how far the owner's writes are applied, once a write at that
// position is for the networks, or ctx is done.
func (g *Gossip) waitApplied(ctx context.Context, owner string, at endpoint.Position, networks []string) progress {
	for {
		p, wake := g.progressOf(owner)
		if p.covers(at, networks) || ctx.Err() != nil {
			return p
		}
		select {
		case <-wake:
		case <-ctx.Done():
		}
	}
}
