package sim

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/node/fabric"
	"shoal/node/plan"
	"shoal/node/presence"
	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
)

// network is a daemon's part in the network, over the host's fake kernel.
type network struct {
	*presence.Presence
	d     *daemon
	names *names
}

func (d *daemon) startNetwork(cluster *api.Cluster, self *api.Node, epoch uint64) (*network, error) {
	if self.Number == 0 {
		return nil, fmt.Errorf("the managers gave %s no number", d.h.name)
	}
	n := &network{d: d, names: &names{machine: d.h.machine}}
	var err error
	n.Presence, err = presence.New(presence.Config{
		Self: plan.Self{
			ID: d.h.id, Number: self.Number, VTEP: d.h.addr, Port: uint16(cluster.DataPathPort), MTU: 1500, GatewayMTU: 1500,
			NamespaceDir: "/run/" + d.h.name + "/netns",
		},
		Hostname: d.h.name, Epoch: epoch, Dir: filepath.Join(d.h.dir, "network"), Logger: d.h.logger(),
		ManagerMissed: d.session.Abandon,
		Fabric: fabric.Config{
			Overlay: overlay{d.h.machine}, Balancer: balancer{d.h.machine}, Translator: translator{d.h.machine},
			Namespaces: namespaces{d.h.machine}, Names: n.names,
		},
	})
	if err != nil {
		return nil, err
	}
	profile := gossip.DefaultProfile()
	profile.Scale = d.h.c.cfg.GossipScale
	return n, n.Start(gossip.Config{
		Bind: netip.AddrPortFrom(d.h.addr, gossipPort), Keys: cluster.GossipKeys, Profile: profile,
		ServerTLS: ca.MutualServerConfig(d.source), ClientTLS: ca.MutualClientConfig(d.source),
		ListenPacket: d.h.c.underlay.Packets, Listen: d.h.c.underlay.Listen, Dial: dialGossip(d.h.c.underlay.Dialer(d.h.addr)),
	})
}

// dialGossip gives gossip the host's way of opening streams.
func dialGossip(dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, "tcp", addr) }
}

// publisher is the agent's way into the endpoint table, watched.
type publisher struct {
	presence.Publisher
	h *Host
}

// Publish implements agent.Endpoints.
func (p publisher) Publish(taskID string, v endpoint.Value) {
	p.h.c.watch.offer(p.h, taskID, v, v.State == endpoint.Ready)
	p.Publisher.Publish(taskID, v)
}

// Withdraw implements agent.Endpoints.
func (p publisher) Withdraw(taskID string) {
	p.h.c.watch.offer(p.h, taskID, endpoint.Value{}, false)
	p.Publisher.Withdraw(taskID)
}
