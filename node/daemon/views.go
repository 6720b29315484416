package daemon

import (
	"net/http"

	"shoal/control/dockerapi/wire"
	"shoal/node/netview"
)

// mountViews adds what netctl asks for.
func (d *Daemon) mountViews(rt *wire.Router) { netview.Mount(rt, d.sources) }

// peerRouter is what other nodes may ask: the network's views and nothing else.
func (d *Daemon) peerRouter() http.Handler {
	rt := wire.NewRouter(d.cfg.Logger)
	d.mountViews(rt)
	return rt
}

// sources are where the views come from, nil outside a cluster.
func (d *Daemon) sources() *netview.Sources {
	m := d.current()
	if m == nil {
		return nil
	}
	m.mu.Lock()
	n, a := m.net, m.agent
	m.mu.Unlock()
	if n == nil {
		return nil
	}
	assigned := a.Assigned()
	s := &netview.Sources{
		NodeID: m.state.NodeID, Fabric: n.fabric, View: n.table.View, Gossip: n.gossip.Stats, Prober: n.prober,
		Networks: assigned.Networks, Services: assigned.Services, Nodes: assigned.Nodes,
		Balancer: d.balancer, Why: d.why, Hides: d.hides, Peers: n.ask, Meter: n.meter,
	}
	if m.manager != nil {
		view := m.manager.View()
		s.NetworkName = func(id string) string {
			if known := view.Network(id); known != nil {
				return known.Spec.Name
			}
			return ""
		}
	}
	return s
}
