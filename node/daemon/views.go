package daemon

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/orchestrate/gossipkeys"
	"shoal/control/orchestrate/keys"
	"shoal/control/store"
	"shoal/node/fabric"
	"shoal/node/metrics"
	"shoal/node/netview"
	"shoal/node/plan"
)

// mountViews adds what netctl and Prometheus ask for.
func (d *Daemon) mountViews(rt *wire.Router) {
	netview.Mount(rt, d.sources)
	scrape := d.metrics.Handler()
	rt.Handle(http.MethodGet, "/metrics", func(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
		scrape.ServeHTTP(w, r)
		return nil
	})
}

// metricSources are where metrics come from, nil outside a cluster.
func (d *Daemon) metricSources() *metrics.Sources {
	m, s := d.current(), d.sources()
	if m == nil || s == nil {
		return nil
	}
	m.mu.Lock()
	n := m.net
	m.mu.Unlock()
	out := &metrics.Sources{
		Gossip: s.Gossip, View: s.View, Wish: s.Fabric.Wish, Loop: s.Fabric.Status, Names: n.names.Counts,
		Repairs:  func() map[fabric.Part]uint64 { _, total := s.Fabric.Repairs(); return total },
		Services: func() (netview.Top, error) { return s.Top(context.Background(), url.Values{}) },
	}
	if m.manager != nil {
		out.Raft = m.manager.Raft
	}
	return out
}

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
		NodeID: m.state.NodeID, Fabric: n.Fabric(), View: n.Table().View, Gossip: n.Gossip().Stats, Prober: n.prober,
		Networks: assigned.Networks, Services: assigned.Services, Nodes: assigned.Nodes,
		Balancer: d.balancer, Why: d.why, Hides: d.hides, Peers: n.ask, Meter: n.meter, GossipStep: n.GossipStep,
	}
	if m.d.unsealed != nil {
		s.Unsealed = m.d.unsealed.Error()
	}
	if assigned.Cluster != nil {
		s.Keys, s.GossipChange = assigned.Cluster.TunnelKeys, assigned.Cluster.GossipChange
	}
	if m.manager != nil {
		gossipKeys(s, m.manager.View())
		s.Waiting = func() []string {
			if e := s.Keys; e.Changing() {
				return keys.Waiting(m.manager.View().Nodes(), e.Current)
			}
			return nil
		}
		view := m.manager.View()
		s.Tasks = func(serviceID string) (words []string) {
			for _, t := range view.TasksByService(serviceID) {
				if api.Rank(t.DesiredState) <= api.Rank(swarm.TaskStateRunning) {
					words = append(words, netview.TaskWords(plan.TaskName(t), hostname(view, t.NodeID), t))
				}
			}
			slices.Sort(words)
			return words
		}
		s.NetworkName = func(id string) string {
			if known := view.Network(id); known != nil {
				return known.Spec.Name
			}
			return ""
		}
	}
	return s
}

// gossipKeys adds what a manager knows of a change of the gossip keys: workers are not
// told how far the others are.
func gossipKeys(s *netview.Sources, view *store.View) {
	c := view.Cluster()
	if c == nil {
		return
	}
	s.GossipChange = c.GossipChange
	s.GossipWaits = func() []string { return gossipkeys.For(c, view.Nodes()) }
}

// hostname is a node's, "" for none.
func hostname(view *store.View, nodeID string) string {
	if n := view.Node(nodeID); n != nil {
		return n.Description.Hostname
	}
	return ""
}
