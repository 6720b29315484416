package dispatch

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// pulse remembers until when each node counts as alive.
type pulse struct {
	mu    sync.Mutex
	until map[string]time.Time
	heard map[string]bool // called in this term
	found bool            // half of those that count as alive have
}

func newPulse() *pulse { return &pulse{until: map[string]time.Time{}, heard: map[string]bool{}} }

// beat notes that the node was heard.
func (p *pulse) beat(nodeID string, now time.Time, period time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until[nodeID] = now.Add(missed * period)
	p.heard[nodeID] = true
}

// hasten leaves a node whose stream broke one heartbeat less to be heard again.
func (p *pulse) hasten(nodeID string, now time.Time, period time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if soon := now.Add((missed - 1) * period); p.until[nodeID].After(soon) {
		p.until[nodeID] = soon
	}
}

// excuse gives every node more time: the manager itself was stopped, or waited
// for a quorum, and cannot tell whether they called meanwhile.
func (p *pulse) excuse(late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, until := range p.until {
		p.until[id] = until.Add(late)
	}
}

// expired returns which of the nodes are overdue. A node that was never heard in
// this term has twice the time, from the first look at it: it has to notice that
// there is a new leader. Once half of the nodes have noticed, the others have as
// long as after a broken stream. The one whose death made the new leader is among
// them, mostly.
func (p *pulse) expired(nodes []*api.Node, now time.Time, period time.Duration) []*api.Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*api.Node
	live := make(map[string]time.Time, len(nodes))
	for _, node := range nodes {
		until, known := p.until[node.ID]
		if !known {
			until = now.Add(2 * missed * period)
		}
		live[node.ID] = until
		if node.Status.State != swarm.NodeStateDown && now.After(until) {
			out = append(out, node)
		}
	}
	p.until = live // forgets nodes that were removed
	maps.DeleteFunc(p.heard, func(id string, _ bool) bool { _, there := live[id]; return !there })
	p.hurry(nodes, now.Add((missed-1)*period))
	return out
}

// hurry gives the unheard until then at most, when half of the nodes are heard.
func (p *pulse) hurry(nodes []*api.Node, then time.Time) {
	var unheard []string
	alive := 0
	for _, node := range nodes {
		if node.Status.State == swarm.NodeStateDown {
			continue
		}
		if alive++; !p.heard[node.ID] {
			unheard = append(unheard, node.ID)
		}
	}
	if p.found || 2*len(unheard) > alive {
		return
	}
	p.found = true
	for _, id := range unheard {
		if p.until[id].After(then) {
			p.until[id] = then
		}
	}
}

// watchPulse declares silent nodes dead.
func (t *term) watchPulse(ctx context.Context) error {
	looked := t.cfg.Now()
	for {
		view := t.cfg.Store.View()
		period := t.heartbeat(view)
		pause := period / 4
		if late := t.cfg.Now().Sub(looked) - pause; late > pause {
			t.pulse.excuse(late)
		}
		looked = t.cfg.Now()
		if err := t.expire(ctx, view); err != nil && ctx.Err() == nil {
			// The proposal is made again at the next look; what stands
			// between is a cluster without quorum, which cannot agree on
			// anybody's death.
			t.cfg.Logger.Warn("declare silent nodes down", "err", err)
		}
		select {
		case <-ctx.Done():
			return context.Canceled
		case <-time.After(pause):
		}
	}
}

// expire proposes the death of every overdue node, in bounded batches.
func (t *term) expire(ctx context.Context, view *store.View) error {
	now := t.cfg.Now()
	var ops []api.Op
	for _, node := range t.pulse.expired(view.Nodes(), now, t.heartbeat(view)) {
		dead := *node
		dead.Status.State = swarm.NodeStateDown
		dead.Status.Message = "heartbeat failure"
		dead.DownSince = now
		ops = append(ops, api.NodeStatus(api.PartState, &dead))
		t.cfg.Logger.Warn("node is down", "node", node.ID, "hostname", node.Description.Hostname)
	}
	for len(ops) > 0 {
		n := min(len(ops), batchSize)
		if err := t.cfg.Propose(ctx, ops[:n]); err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}
