package presence

import (
	"context"
	"time"

	"shoal/overlay/endpoint"
)

// Publisher is the agent's way into the endpoint table: it writes the node's own
// records, tells the others, and wakes the node's own network.
type Publisher struct {
	*Presence
	// SettleTook is told how long the others took to follow, or how many did not.
	SettleTook func(took time.Duration, missing int)
}

// Publish implements agent.Endpoints.
func (p Publisher) Publish(taskID string, v endpoint.Value) {
	p.gossip.Publish([]endpoint.Record{p.table.Set(taskID, v)})
	p.fabric.Trigger()
}

// Withdraw implements agent.Endpoints.
func (p Publisher) Withdraw(taskID string) {
	ended, _ := p.table.View().Record(p.table.Self(), taskID)
	if tombstone, ok := p.table.Remove(taskID); ok {
		p.withdrawn.note(ended, tombstone.At())
		p.gossip.Publish([]endpoint.Record{tombstone})
		p.fabric.Trigger()
	}
}

// Settled implements agent.Endpoints. Nodes in trouble count for the networks that are
// in order.
func (p Publisher) Settled(ctx context.Context) []string {
	at := p.table.At()
	missing, err := p.gossip.Confirm(ctx, p.withdrawn.question(p.table.Self(), at))
	p.withdrawn.asked(at, err == nil)
	if err != nil && len(missing) == 0 {
		return []string{err.Error()}
	}
	return missing
}

// Settle implements agent.Endpoints.
func (p Publisher) Settle(ctx context.Context, taskID string) []string {
	r, ok := p.table.View().Record(p.table.Self(), taskID)
	if !ok {
		return nil
	}
	began := time.Now()
	missing, err := p.gossip.Confirm(ctx, r)
	p.SettleTook(time.Since(began), len(missing))
	if err != nil && len(missing) == 0 {
		return []string{err.Error()}
	}
	return missing
}
