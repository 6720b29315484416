package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/node/agent"
	"shoal/node/fabric"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
)

// Bounds of a daemon's start, as node/daemon has them.
const (
	firstContact   = 3 * time.Second
	restoreTimeout = 15 * time.Second
)

// network is a daemon's part in the network: table, gossip, names and fabric.
type network struct {
	d        *daemon
	self     plan.Self
	table    *endpoint.Table
	gossip   *gossip.Gossip
	fabric   *fabric.Fabric
	names    *names
	assigned atomic.Pointer[agent.Agent]
	// remembered are the owners that an earlier run knew.
	remembered []string
}

func (d *daemon) startNetwork(cluster *api.Cluster, self *api.Node, epoch uint64) (*network, error) {
	if self.Number == 0 {
		return nil, fmt.Errorf("the managers gave %s no number", d.h.name)
	}
	n := &network{d: d, table: endpoint.New(d.h.id, epoch), names: &names{machine: d.h.machine}}
	n.self = plan.Self{
		ID: d.h.id, Number: self.Number, VTEP: d.h.addr, Port: uint16(cluster.DataPathPort), MTU: 1500, GatewayMTU: 1500,
		NamespaceDir: "/run/" + d.h.name + "/netns",
	}
	dir := filepath.Join(d.h.dir, "network")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	n.fabric, err = fabric.New(fabric.Config{
		Dir: dir, Self: n.self, Overlay: overlay{d.h.machine}, Balancer: balancer{d.h.machine}, Translator: translator{d.h.machine},
		Namespaces: namespaces{d.h.machine}, Names: n.names, Assigned: n.lists, View: n.table.View,
		Applied: func(v *endpoint.View) { n.gossip.SetApplied(v) }, Logger: d.h.logger(),
		Revision: n.revision, Reached: n.reached,
	})
	if err != nil {
		return nil, err
	}
	n.table.Hold()
	if err := fabric.Remember(dir, n.table); err != nil {
		return nil, err
	}
	n.remembered = n.table.Owners()
	profile := gossip.DefaultProfile()
	profile.Scale = d.h.c.cfg.GossipScale
	dial := d.h.c.underlay.Dialer(d.h.addr)
	n.gossip, err = gossip.Start(gossip.Config{
		NodeID: d.h.id, Name: d.h.name, Bind: netip.AddrPortFrom(d.h.addr, gossipPort), Keys: cluster.GossipKeys,
		ServerTLS: ca.MutualServerConfig(d.source), ClientTLS: ca.MutualClientConfig(d.source), Table: n.table, Profile: profile,
		MembersChanged: n.fabric.Trigger, Logger: d.h.logger(), ListenPacket: d.h.c.underlay.Packets, Listen: d.h.c.underlay.Listen,
		Dial: dialGossip(dial),
	})
	if err != nil {
		return nil, err
	}
	n.publishSelf()
	return n, nil
}

// publishSelf writes the node's own record.
func (n *network) publishSelf() {
	v := endpoint.Value{State: endpoint.Ready, Hostname: n.d.h.name, VTEP: n.self.VTEP}
	if a := n.assigned.Load(); a != nil {
		for _, net := range a.Assigned().Networks {
			if net.Spec.Ingress {
				v.Attachments = []endpoint.Attachment{n.self.MeshAttachment(net)}
			}
		}
	}
	before := n.table.At()
	if r := n.table.Set(endpoint.NodeKey, v); before.Before(r.At()) {
		n.gossip.Publish([]endpoint.Record{r})
	}
}

// lists are what the fabric plans from.
func (n *network) lists() ([]*api.Network, []*api.Service, []*api.Node) {
	a := n.assigned.Load()
	if a == nil {
		return nil, nil, nil
	}
	s := a.Assigned()
	return agent.List(s.Networks), agent.List(s.Services), agent.List(s.Nodes)
}

// run keeps the network right until ctx ends.
func (n *network) run(ctx context.Context, a *agent.Agent) {
	n.publishSelf()
	restored := make(chan struct{})
	go func() {
		defer close(restored)
		within, cancel := context.WithTimeout(ctx, restoreTimeout)
		defer cancel()
		a.Restored(within)
		n.table.Open()
	}()
	n.awaitContact(ctx, a)
	n.awaitTasks(ctx, a)
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		for {
			next := n.table.Changed()
			n.fabric.Trigger()
			select {
			case <-next:
			case <-ctx.Done():
				return
			}
		}
	}()
	remembered := make(chan struct{})
	go func() {
		defer close(remembered)
		fabric.Memorize(ctx, filepath.Join(n.d.h.dir, "network"), n.table, func(err error) {
			n.d.h.c.fail("endpoints of %s: %v", n.d.h.name, err)
		})
	}()
	n.fabric.Run(ctx)
	<-changed
	<-remembered
	<-restored
}

// awaitContact returns when the table can be taken for whole: it has been
// compared with another node's, and every node that the managers find ready has
// told of itself. A node without a past returns at once, for it has nothing to
// lose, and so does one that is alone. A bound ends the wait for nodes that do
// not speak.
func (n *network) awaitContact(ctx context.Context, a *agent.Agent) {
	if n.table.At().Epoch <= 1 || len(a.Assigned().Nodes) <= 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstContact)
	defer cancel()
	select {
	case <-n.gossip.Compared():
	case <-ctx.Done():
		return
	}
	for {
		changed := n.table.Changed()
		if n.tableWhole(a) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// awaitTasks returns when every task that outlived the earlier run counts again.
// Until then what leads to it stays as it is. A bound ends the wait for a runtime
// that does not answer.
func (n *network) awaitTasks(ctx context.Context, a *agent.Agent) {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	a.Sighted(ctx)
}

func (n *network) tableWhole(a *agent.Agent) bool {
	view := n.table.View()
	for id, node := range a.Assigned().Nodes {
		if _, known := view.Node(id); !known && id != n.self.ID && node.Status.State == swarm.NodeStateReady {
			return false
		}
	}
	return len(n.table.Behind()) == 0
}

// dialGossip gives gossip the host's way of opening streams.
func dialGossip(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, "tcp", addr) }
}

func (n *network) join(peers []string) {
	n.publishSelf()
	if len(peers) > 0 {
		n.gossip.Join(peers)
	}
}

func (n *network) revision() uint64 {
	if a := n.assigned.Load(); a != nil {
		return a.Revision()
	}
	return 0
}

func (n *network) reached(revision uint64) {
	if a := n.assigned.Load(); a != nil {
		a.Programmed(revision)
	}
}

func (n *network) forget(nodeID string) {
	ctx, cancel := context.WithTimeout(n.d.ctx, firstContact)
	defer cancel()
	if err := n.gossip.Forget(ctx, nodeID); err != nil && !errors.Is(err, context.Canceled) {
		n.d.h.logger().Warn("a removed node is still in the gossip", "node", nodeID, "error", err)
	}
}

// publisher is the agent's way into the endpoint table.
type publisher struct{ *network }

// Publish implements agent.Endpoints.
func (p *publisher) Publish(taskID string, v endpoint.Value) {
	p.d.h.c.watch.offer(p.d.h, taskID, v, v.State == endpoint.Ready)
	p.gossip.Publish([]endpoint.Record{p.table.Set(taskID, v)})
	p.fabric.Trigger()
}

// Withdraw implements agent.Endpoints.
func (p *publisher) Withdraw(taskID string) {
	p.d.h.c.watch.offer(p.d.h, taskID, endpoint.Value{}, false)
	if tombstone, ok := p.table.Remove(taskID); ok {
		p.gossip.Publish([]endpoint.Record{tombstone})
		p.fabric.Trigger()
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
	missing, err := p.gossip.Confirm(ctx, r)
	if err != nil && len(missing) == 0 {
		return []string{err.Error()}
	}
	return missing
}
