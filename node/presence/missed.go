package presence

import (
	"sync"

	"shoal/control/api"
	"shoal/overlay/gossip"
)

// missed remembers whom the gossip misses.
type missed struct {
	mu     sync.Mutex
	failed map[string]bool
}

// managers returns the control addresses of the managers among the nodes that have
// failed since the last call.
func (m *missed) managers(members []gossip.Member, nodes []*api.Node) (addrs []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	failed := map[string]bool{}
	for _, member := range members {
		if member.State == gossip.Failed {
			failed[member.NodeID] = true
		}
	}
	for _, n := range nodes {
		if n.RaftAddr != "" && failed[n.ID] && !m.failed[n.ID] {
			addrs = append(addrs, n.RaftAddr)
		}
	}
	m.failed = failed
	return addrs
}

// tellMissed hands on which managers the gossip has begun to miss.
func (p *Presence) tellMissed() {
	if p.gossip == nil { // it did not start
		return
	}
	_, _, nodes := p.Lists()
	for _, addr := range p.missed.managers(p.gossip.Members(), nodes) {
		p.cfg.ManagerMissed(addr)
	}
}
