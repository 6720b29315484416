package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/dataplane/nft"
	"shoal/node/fabric"
	"shoal/node/netview"
	"shoal/node/peer"
	"shoal/node/plan"
	"shoal/node/presence"
	"shoal/node/resolver"
	"shoal/overlay/gossip"
	"shoal/overlay/probe"
	"shoal/overlay/rtnl"
)

// gossipPort is Serf's, TCP and UDP.
const gossipPort = 7946

// overlayMember is a member's part in the network, with the kernel and the sockets
// that it stands on.
type overlayMember struct {
	*presence.Presence
	d      *Daemon
	self   plan.Self
	kernel *rtnl.Kernel
	names  *resolver.Client
	prober *probe.Prober
	// asked answers other nodes' questions about this one's network, ask asks them.
	asked   *peer.Server
	ask     *peer.Client
	meter   *netview.Meter
	tunnels *tunnels
}

func (m *member) startNetwork(cluster *api.Cluster, self *api.Node, dataPath netip.Addr, epoch uint64) (*overlayMember, error) {
	n := &overlayMember{d: m.d, meter: &netview.Meter{}}
	if err := n.setSelf(m, cluster, self, dataPath); err != nil {
		return nil, err
	}
	var err error
	if n.kernel, err = rtnl.New(rtnl.Config{Directory: n.self.NamespaceDir}); err != nil {
		return nil, err
	}
	if err := n.startPresence(m, dataPath, epoch); err != nil {
		return nil, errors.Join(err, n.kernel.Close())
	}
	n.setEpochs(cluster.TunnelKeys)
	n.prober = probe.New(probe.Config{Targets: n.targets, Soften: n.Fabric().FillChecksums, Logger: m.d.cfg.Logger,
		Report: func(messages []string) { m.d.can.find("data path", messages) }})
	n.asked = peer.NewServer(m.d.peerRouter(), n.Admit, m.d.cfg.Logger)
	if err := n.startGossip(m, cluster); err != nil {
		n.names.Close()
		return nil, errors.Join(err, n.asked.Close(), n.kernel.Close())
	}
	n.ask = peer.NewClient(n.Gossip().Dial)
	return n, nil
}

// startPresence makes table and fabric over the node's kernel.
func (n *overlayMember) startPresence(m *member, dataPath netip.Addr, epoch uint64) (err error) {
	mtus := func() (path, egress int, err error) { return n.kernel.MTUs(dataPath) }
	if n.self.MTU, n.self.GatewayMTU, err = mtus(); err != nil {
		return err
	}
	dir := m.d.path("network")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if n.tunnels, err = loadTunnels(filepath.Join(dir, "tunnel.json"), m.d.unsealed); err != nil {
		return err
	}
	if n.names, err = m.d.startNames(); err != nil {
		return err
	}
	n.Presence, err = presence.New(presence.Config{
		Self: n.self, Hostname: m.d.cfg.Hostname, Epoch: epoch, Dir: dir, Logger: m.d.cfg.Logger,
		ManagerMissed: m.session.Abandon,
		Fabric: fabric.Config{
			Overlay: n.kernel, Vault: m.d.vault(n.self), Tunnels: n.tunnels.plan, Balancer: m.d.balancer, Translator: nft.New(),
			Names: n.names, Questions: m.d.questions, MTUs: mtus, Addrs: n.kernel.Addrs, BridgesFiltered: rtnl.BridgesFiltered,
			Programmed: m.d.metrics.Programmed, Findings: func(messages []string) { m.d.can.find("balancer", messages) },
			Troubles: func(messages []string) { m.d.can.find("network", messages) },
		},
	})
	if err != nil {
		n.names.Close()
	}
	return err
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
	return n.Start(gossip.Config{
		Bind: netip.AddrPortFrom(addr.Addr(), gossipPort), Keys: cluster.GossipKeys, Profile: profile,
		ServerTLS: ca.MutualServerConfig(m.source), ClientTLS: ca.MutualClientConfig(m.source),
		Others: map[string]func(*tls.Conn){peer.Protocol: n.asked.Take},
	})
}

// targets are the nodes that the data path is tested to.
func (n *overlayMember) targets() probe.Targets {
	_, _, nodes := n.Lists()
	return plan.ProbeTargets(n.Fabric().Self(), nodes, n.Table().View().Down)
}

// setEpochs makes the node's keys those that count. Without them encrypted
// networks are not carried.
func (n *overlayMember) setEpochs(e api.KeyEpochs) {
	changed, err := n.tunnels.follow(e)
	if err != nil {
		n.d.cfg.Logger.Error("the node has no keys for encrypted networks", "epoch", e.Current, "error", err)
	}
	if changed {
		n.Fabric().Trigger()
	}
}

// close ends gossip and the hold on the kernel. What is in the kernel and the
// tasks' name server stay, for the next run, unless the node leaves its cluster.
func (n *overlayMember) close(leaving bool) error {
	var errs []error
	if leaving {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
		defer cancel()
		errs = append(errs, n.Fabric().Clear(ctx), n.names.Quit())
	}
	n.ask.Close()
	n.names.Close()
	n.meter.Close()
	return errors.Join(append(errs, n.Gossip().Shutdown(), n.asked.Close(), n.kernel.Close())...)
}
