package daemon

import (
	"context"
	"time"

	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
)

// publisher is the agent's way into the endpoint table: it writes the node's
// own records, tells the others, and wakes the node's own network.
type publisher struct {
	table   *endpoint.Table
	gossip  *gossip.Gossip
	trigger func()
	// settled is told how long the others took to follow, or how many did not.
	settled func(took time.Duration, missing int)
}

// Publish implements agent.Endpoints.
func (p *publisher) Publish(taskID string, v endpoint.Value) {
	p.gossip.Publish([]endpoint.Record{p.table.Set(taskID, v)})
	p.trigger()
}

// Withdraw implements agent.Endpoints.
func (p *publisher) Withdraw(taskID string) {
	if tombstone, ok := p.table.Remove(taskID); ok {
		p.gossip.Publish([]endpoint.Record{tombstone})
		p.trigger()
	}
}

// Settled implements agent.Endpoints.
func (p *publisher) Settled(ctx context.Context) []string {
	at := p.table.At()
	missing, err := p.gossip.Confirm(ctx, endpoint.Record{Owner: p.table.Self(), Key: "all", Epoch: at.Epoch, Seq: at.Seq})
	if err != nil && len(missing) == 0 {
		return []string{err.Error()}
	}
	return missing
}

// Settle implements agent.Endpoints.
func (p *publisher) Settle(ctx context.Context, taskID string) []string {
	r, ok := p.table.View().Record(p.table.Self(), taskID)
	if !ok {
		return nil
	}
	began := time.Now()
	missing, err := p.gossip.Confirm(ctx, r)
	p.settled(time.Since(began), len(missing))
	if err != nil && len(missing) == 0 {
		return []string{err.Error()}
	}
	return missing
}
