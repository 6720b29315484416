package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/dataplane/nft"
	"shoal/node/agent"
	"shoal/node/fabric"
	"shoal/node/netview"
	"shoal/node/peer"
	"shoal/node/plan"
	"shoal/node/resolver"
	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
	"shoal/overlay/probe"
	"shoal/overlay/rtnl"
)

// gossipPort is Serf's, TCP and UDP.
const gossipPort = 7946

// firstContact bounds how long a node that comes back waits to hear from the
// others before it changes what an earlier run left in the kernel: what it does
// not know yet must not be taken for gone.
const firstContact = 3 * time.Second

// restoreTimeout bounds how long other nodes go on with what they knew of a node
// that restores its tasks.
const restoreTimeout = 15 * time.Second

// overlayMember is a member's part in the network: table, gossip and fabric.
type overlayMember struct {
	d      *Daemon
	self   plan.Self
	table  *endpoint.Table
	gossip *gossip.Gossip
	fabric *fabric.Fabric
	kernel *rtnl.Kernel
	names  *resolver.Client
	prober *probe.Prober
	// asked answers other nodes' questions about this one's network, ask asks them.
	asked    *peer.Server
	ask      *peer.Client
	meter    *netview.Meter
	assigned atomic.Pointer[agent.Agent]
	tunnels  *tunnels
	// remembered are the owners that an earlier run knew, until the managers told
	// which of them there still are.
	remembered []string
}

func (m *member) startNetwork(cluster *api.Cluster, self *api.Node, dataPath netip.Addr, epoch uint64) (*overlayMember, error) {
	n := &overlayMember{d: m.d, table: endpoint.New(m.state.NodeID, epoch)}
	if err := n.setSelf(m, cluster, self, dataPath); err != nil {
		return nil, err
	}
	var err error
	if n.kernel, err = rtnl.New(rtnl.Config{Directory: n.self.NamespaceDir}); err != nil {
		return nil, err
	}
	if n.self.MTU, n.self.GatewayMTU, err = n.kernel.MTUs(dataPath); err != nil {
		return nil, errors.Join(err, n.kernel.Close())
	}
	dir := m.d.path("network")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errors.Join(err, n.kernel.Close())
	}
	if n.tunnels, err = loadTunnels(filepath.Join(dir, "tunnel.json"), m.d.unsealed); err != nil {
		return nil, errors.Join(err, n.kernel.Close())
	}
	if n.names, err = m.d.startNames(); err != nil {
		return nil, errors.Join(err, n.kernel.Close())
	}
	n.fabric, err = fabric.New(fabric.Config{
		Dir: dir, Self: n.self, Overlay: n.kernel, Vault: m.d.vault(n.self), Tunnels: n.tunnels.plan, Balancer: m.d.balancer, Translator: nft.New(),
		Names: n.names, Questions: m.d.questions,
		MTUs: func() (int, int, error) { return n.kernel.MTUs(dataPath) }, Addrs: n.kernel.Addrs, BridgesFiltered: rtnl.BridgesFiltered,
		Assigned: n.lists, View: n.table.View, Applied: func(v *endpoint.View) { n.gossip.SetApplied(v) }, Programmed: m.d.metrics.Programmed, Logger: m.d.cfg.Logger,
		Revision: n.revision, Reached: n.reached,
		Findings: func(messages []string) { m.d.can.find("balancer", messages) },
	})
	if err != nil {
		n.names.Close()
		return nil, errors.Join(err, n.kernel.Close())
	}
	n.setEpochs(cluster.TunnelKeys)
	n.prober = probe.New(probe.Config{Targets: n.targets, Soften: n.fabric.FillChecksums, Logger: m.d.cfg.Logger,
		Report: func(messages []string) { m.d.can.find("data path", messages) }})
	n.table.Hold()
	if err := fabric.Remember(dir, n.table); err != nil {
		m.d.cfg.Logger.Warn("this node begins without what it knew of others", "error", err)
	}
	n.remembered = n.table.Owners()
	n.asked = peer.NewServer(m.d.peerRouter(), n.admit, m.d.cfg.Logger)
	if err := n.startGossip(m, cluster); err != nil {
		n.names.Close()
		return nil, errors.Join(err, n.asked.Close(), n.kernel.Close())
	}
	n.ask, n.meter = peer.NewClient(n.gossip.Dial), &netview.Meter{}
	n.publishSelf()
	return n, nil
}

func (n *overlayMember) setSelf(m *member, cluster *api.Cluster, self *api.Node, dataPath netip.Addr) error {
	dir, err := m.d.namespaceDir()
	if err != nil {
		return err
	}
	if self.Number == 0 {
		return fmt.Errorf("the managers gave this node no number")
	}
	none, noneOutside := m.d.noIPv6()
	n.self = plan.Self{
		ID: m.state.NodeID, Number: self.Number, VTEP: dataPath, Port: uint16(cluster.DataPathPort),
		NamespaceDir: dir, Probes: true, HidesClients: m.d.hides != nil, NoIPv6: none, NoIPv6Outside: noneOutside,
	}
	return nil
}

func (n *overlayMember) startGossip(m *member, cluster *api.Cluster) error {
	addr, err := netip.ParseAddrPort(m.state.AdvertiseAddr)
	if err != nil {
		return fmt.Errorf("advertised address: %w", err)
	}
	profile := gossip.DefaultProfile()
	profile.Scale = m.d.cfg.GossipScale
	n.gossip, err = gossip.Start(gossip.Config{
		NodeID: m.state.NodeID, Name: m.d.cfg.Hostname, Bind: netip.AddrPortFrom(addr.Addr(), gossipPort),
		Keys: cluster.GossipKeys, ServerTLS: ca.MutualServerConfig(m.source), ClientTLS: ca.MutualClientConfig(m.source),
		Table: n.table, Profile: profile, MembersChanged: n.fabric.Trigger, Logger: m.d.cfg.Logger,
		Others: map[string]func(*tls.Conn){peer.Protocol: n.asked.Take},
	})
	return err
}

// admit refuses nodes whose certificate is good but who were removed since.
func (n *overlayMember) admit(nodeID string) error {
	if a := n.assigned.Load(); a == nil || a.Assigned().Nodes[nodeID] == nil {
		return api.Errorf(api.Forbidden, "node %s is not in this cluster any more", nodeID)
	}
	return nil
}

// publishSelf writes the node's own record: where its routing mesh answers.
func (n *overlayMember) publishSelf() {
	v := endpoint.Value{State: endpoint.Ready, Hostname: n.d.cfg.Hostname, VTEP: n.self.VTEP, HidesClients: n.self.HidesClients}
	if ingress := n.ingress(); ingress != nil {
		v.Attachments = []endpoint.Attachment{n.self.MeshAttachment(ingress)}
	}
	before := n.table.At()
	if r := n.table.Set(endpoint.NodeKey, v); before.Before(r.At()) {
		n.gossip.Publish([]endpoint.Record{r})
	}
}

func (n *overlayMember) ingress() *api.Network {
	a := n.assigned.Load()
	if a == nil {
		return nil
	}
	for _, net := range a.Assigned().Networks {
		if net.Spec.Ingress && !net.Removed {
			return net
		}
	}
	return nil
}

// revision is that of the newest assignment, 0 before the first.
func (n *overlayMember) revision() uint64 {
	if a := n.assigned.Load(); a != nil {
		return a.Revision()
	}
	return 0
}

func (n *overlayMember) reached(revision uint64) {
	if a := n.assigned.Load(); a != nil {
		a.Programmed(revision)
	}
}

// lists are what the fabric plans from.
func (n *overlayMember) lists() ([]*api.Network, []*api.Service, []*api.Node) {
	a := n.assigned.Load()
	if a == nil {
		return nil, nil, nil
	}
	s := a.Assigned()
	return agent.List(s.Networks), agent.List(s.Services), agent.List(s.Nodes)
}

// targets are the nodes that the data path is tested to.
func (n *overlayMember) targets() probe.Targets {
	_, _, nodes := n.lists()
	return plan.ProbeTargets(n.fabric.Self(), nodes, n.table.View().Down)
}

// run keeps the network right until ctx ends.
func (n *overlayMember) run(ctx context.Context, a *agent.Agent) {
	n.publishSelf() // the agent knows the ingress network from the earlier run
	go func() {
		// The old records count elsewhere until the new ones are all there. When
		// no task has outlived the earlier run that is at once, and nobody is led
		// to a task that died with it.
		restored, cancel := context.WithTimeout(ctx, restoreTimeout)
		defer cancel()
		a.Restored(restored)
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
		fabric.Memorize(ctx, n.d.path("network"), n.table, func(err error) {
			n.d.cfg.Logger.Error("a restart would not know what this node knows of others", "error", err)
		})
	}()
	tested := make(chan struct{})
	go func() {
		defer close(tested)
		n.prober.Run(ctx)
	}()
	n.fabric.Run(ctx)
	<-changed
	<-tested
	<-remembered
}

// awaitContact returns when the table can be taken for whole: it has been
// compared with another node's, and every node that the managers find ready has
// told of itself. A node without a past returns at once, for it has nothing to
// lose, and so does one that is alone. A bound ends the wait for nodes that do
// not speak.
func (n *overlayMember) awaitContact(ctx context.Context, a *agent.Agent) {
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
func (n *overlayMember) awaitTasks(ctx context.Context, a *agent.Agent) {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	a.Sighted(ctx)
}

func (n *overlayMember) tableWhole(a *agent.Agent) bool {
	view := n.table.View()
	for id, node := range a.Assigned().Nodes {
		if _, known := view.Node(id); !known && id != n.self.ID && node.Status.State == swarm.NodeStateReady {
			return false
		}
	}
	return len(n.table.Behind()) == 0
}

func (n *overlayMember) join(peers []string) {
	n.publishSelf()
	if len(peers) > 0 {
		n.gossip.Join(peers)
	}
}

func (n *overlayMember) setKeys(keys [][]byte) {
	if len(keys) == 0 {
		return
	}
	if err := n.gossip.SetKeys(keys); err != nil {
		n.d.cfg.Logger.Error("the gossip keys are not changed", "error", err)
	}
}

// setEpochs makes the node's keys those that count. Without them encrypted
// networks are not carried.
func (n *overlayMember) setEpochs(e api.KeyEpochs) {
	changed, err := n.tunnels.follow(e)
	if err != nil {
		n.d.cfg.Logger.Error("the node has no keys for encrypted networks", "epoch", e.Current, "error", err)
	}
	if changed {
		n.fabric.Trigger()
	}
}

// keepOnly forgets the nodes of an earlier run that the managers do not know any
// more: they were removed while this one was away.
func (n *overlayMember) keepOnly(nodes map[string]*api.Node) {
	for _, id := range n.remembered {
		if nodes[id] == nil && id != n.self.ID {
			n.forget(id)
		}
	}
	n.remembered = nil
}

func (n *overlayMember) forget(nodeID string) {
	ctx, cancel := context.WithTimeout(context.Background(), firstContact)
	defer cancel()
	if err := n.gossip.Forget(ctx, nodeID); err != nil {
		n.d.cfg.Logger.Warn("a removed node is still in the gossip", "node", nodeID, "error", err)
	}
}

// close ends gossip and the hold on the kernel. What is in the kernel and the
// tasks' name server stay, for the next run, unless the node leaves its cluster.
func (n *overlayMember) close(leaving bool) error {
	var errs []error
	if leaving {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
		defer cancel()
		errs = append(errs, n.fabric.Clear(ctx), n.names.Quit())
	}
	n.ask.Close()
	n.names.Close()
	n.meter.Close()
	return errors.Join(append(errs, n.gossip.Shutdown(), n.asked.Close(), n.kernel.Close())...)
}
