// Package presence is a node's part in its cluster's network: the endpoint table,
// the gossip that spreads it, and the fabric that makes it true, with the order in
// which they come back after a restart.
//
// It has no kernel and no sockets of its own: the drivers of the fabric, and how
// gossip reaches other nodes, are the caller's.
package presence

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/agent"
	"shoal/node/fabric"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
)

const (
	// firstContact bounds how long a node that comes back waits to hear from the
	// others before it changes what an earlier run left in the kernel: what it does
	// not know yet must not be taken for gone.
	firstContact = 3 * time.Second
	// restoreTimeout bounds how long other nodes go on with what they knew of a
	// node that restores its tasks.
	restoreTimeout = 15 * time.Second
)

// Config of a Presence; every field is needed.
type Config struct {
	Self     plan.Self
	Hostname string
	// Epoch is the node's incarnation, higher with every start.
	Epoch uint64
	// Dir is the network's own directory.
	Dir string
	// Fabric has the drivers. Dir, Self, what the plan is made from, and whom to
	// tell of it are filled in.
	Fabric fabric.Config
	// ManagerMissed hears the control address of a manager that the gossip begins to
	// miss: it notices a dead machine before a report to it fails.
	ManagerMissed func(addr string)
	Logger        *slog.Logger
}

// Presence is a node's part in the network.
type Presence struct {
	cfg      Config
	table    *endpoint.Table
	fabric   *fabric.Fabric
	gossip   *gossip.Gossip // nil before Start
	assigned atomic.Pointer[agent.Agent]
	// roll has the nodes that the managers told of; nil before that.
	roll atomic.Pointer[map[string]struct{}]
	// step is that of the newest gossip keys in use.
	step atomic.Uint64
	// remembered are the owners that an earlier run knew, until the managers told
	// which of them there still are.
	remembered []string
	withdrawn  withdrawn
	missed     missed
}

// New makes the table and the fabric, with what an earlier run knew of other
// nodes. Start and Run make them work.
func New(cfg Config) (*Presence, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the network: %w", err)
	}
	p := &Presence{cfg: cfg, table: endpoint.New(cfg.Self.ID, cfg.Epoch)}
	p.withdrawn.sure = cfg.Epoch <= 1 // there was no earlier run
	f := cfg.Fabric
	f.Dir, f.Self, f.Logger = cfg.Dir, cfg.Self, cfg.Logger
	f.Assigned, f.View = p.Lists, p.table.View
	f.Applied = func(v *endpoint.View, held ...string) { p.gossip.SetApplied(v, held...) }
	f.Revision, f.Reached = p.revision, p.reached
	var err error
	if p.fabric, err = fabric.New(f); err != nil {
		return nil, err
	}
	p.table.Hold()
	if err := fabric.Remember(cfg.Dir, p.table); err != nil {
		cfg.Logger.Warn("this node begins without what it knew of others", "error", err)
	}
	p.remembered = p.table.Owners()
	return p, nil
}

// Start begins to gossip. Who the node is, its table, its logger and whom it admits
// are filled in, and who hears of changed members.
func (p *Presence) Start(cfg gossip.Config) (err error) {
	cfg.NodeID, cfg.Name, cfg.Table = p.cfg.Self.ID, p.cfg.Hostname, p.table
	cfg.Logger, cfg.Admit = p.cfg.Logger, p.Admit
	started := make(chan struct{})
	defer close(started)
	cfg.MembersChanged = func() {
		p.fabric.Trigger()
		<-started
		p.tellMissed()
	}
	if p.gossip, err = gossip.Start(cfg); err != nil {
		return err
	}
	p.publishSelf()
	return nil
}

// Table is the endpoint table.
func (p *Presence) Table() *endpoint.Table { return p.table }

// Fabric is what makes the table true.
func (p *Presence) Fabric() *fabric.Fabric { return p.fabric }

// Gossip spreads the table; nil before Start.
func (p *Presence) Gossip() *gossip.Gossip { return p.gossip }

// Serve says whose assignments the network is planned from, before Run.
func (p *Presence) Serve(a *agent.Agent) {
	p.assigned.Store(a)
	if known := a.Assigned(); known.Cluster != nil { // of an earlier run, as the gossip's keys are
		p.enrol(known.Nodes)
		p.step.Store(known.Cluster.GossipChange.Step)
	}
}

// publishSelf writes the node's own record: where its routing mesh answers.
func (p *Presence) publishSelf() {
	self := p.cfg.Self
	v := endpoint.Value{State: endpoint.Ready, Hostname: p.cfg.Hostname, VTEP: self.VTEP, HidesClients: self.HidesClients}
	if ingress := p.ingress(); ingress != nil {
		v.Attachments = []endpoint.Attachment{self.MeshAttachment(ingress)}
	}
	before := p.table.At()
	if r := p.table.Set(endpoint.NodeKey, v); before.Before(r.At()) {
		p.gossip.Publish([]endpoint.Record{r})
	}
}

func (p *Presence) ingress() *api.Network {
	networks, _, _ := p.Lists()
	for _, n := range networks {
		if n.Spec.Ingress && !n.Removed {
			return n
		}
	}
	return nil
}

// revision is that of the newest assignment, 0 before the first.
func (p *Presence) revision() uint64 {
	if a := p.assigned.Load(); a != nil {
		return a.Revision()
	}
	return 0
}

// reached passes on how far the network is what the managers ask for. They give away
// none of the addresses that ports of the node lead to.
func (p *Presence) reached(revision uint64, held ...string) {
	if a := p.assigned.Load(); a != nil {
		a.Programmed(revision, slices.DeleteFunc(slices.Clone(held), func(network string) bool { return network == gossip.Own })...)
	}
}

// Lists are what the network is planned from: what the managers told of, by id.
func (p *Presence) Lists() (networks []*api.Network, services []*api.Service, nodes []*api.Node) {
	a := p.assigned.Load()
	if a == nil {
		return nil, nil, nil
	}
	s := a.Assigned()
	return agent.List(s.Networks), agent.List(s.Services), agent.List(s.Nodes)
}

// Follow takes up what an assignment, which the agent has applied, says of the
// other nodes: whom to gossip with, with which keys, and whom to forget.
func (p *Presence) Follow(a api.Assignment) {
	nodes := p.assigned.Load().Assigned().Nodes
	gone := p.enrol(nodes)
	if a.Full {
		gone = append(gone, p.strangers(nodes)...)
	}
	for _, id := range gone {
		p.forget(id)
	}
	for _, op := range a.Ops {
		if c, ok := op.Object.(*api.Cluster); ok {
			p.setKeys(c)
		}
	}
	var peers []string
	for _, n := range agent.List(nodes) {
		if n.ID != p.cfg.Self.ID && n.Status.Addr != "" {
			peers = append(peers, n.Status.Addr)
		}
	}
	p.publishSelf()
	if len(peers) > 0 {
		p.gossip.Join(peers)
	}
}

// setKeys gossips with the cluster's keys, and has the managers told: they wait for
// it before they take the next step of a change.
func (p *Presence) setKeys(c *api.Cluster) {
	if len(c.GossipKeys) == 0 {
		return
	}
	if err := p.gossip.SetKeys(c.GossipKeys); err != nil {
		p.cfg.Logger.Error("the gossip keys are not changed", "error", err)
		return
	}
	if p.step.Swap(c.GossipChange.Step) != c.GossipChange.Step {
		p.assigned.Load().Tell()
	}
}

// GossipStep is the last step of the cluster's change of gossip keys that this node
// has made.
func (p *Presence) GossipStep() uint64 { return p.step.Load() }

// strangers are the nodes that an earlier run knew and the managers do not know any
// more, once: they were removed while this one was away.
func (p *Presence) strangers(nodes map[string]*api.Node) (gone []string) {
	for _, id := range p.remembered {
		if nodes[id] == nil {
			gone = append(gone, id)
		}
	}
	p.remembered = nil
	return gone
}

// forget takes what a node that was removed told of itself out of the network.
func (p *Presence) forget(nodeID string) {
	if nodeID == p.cfg.Self.ID {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), firstContact)
	defer cancel()
	if err := p.gossip.Forget(ctx, nodeID); err != nil {
		p.cfg.Logger.Warn("a removed node is still in the gossip", "node", nodeID, "error", err)
	}
}

// whole says whether the table has been compared to the end, and every node that
// the managers find ready has told of itself.
func (p *Presence) whole() bool {
	view := p.table.View()
	_, _, nodes := p.Lists()
	for _, n := range nodes {
		if _, known := view.Node(n.ID); !known && n.ID != p.cfg.Self.ID && n.Status.State == swarm.NodeStateReady {
			return false
		}
	}
	return len(p.table.Behind()) == 0
}
