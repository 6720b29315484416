package daemon

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi"
	"shoal/control/store"
	"shoal/node/agent"
)

// clusterAPI is the cluster's half of the Docker API, on this node's manager.
func (d *Daemon) clusterAPI() *dockerapi.API {
	return dockerapi.New(dockerapi.Config{
		Store: d.store, Proposer: d, Lifecycle: d, LocalNetworks: localNetworks{d}, Now: time.Now,
	})
}

func (d *Daemon) current() *member {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.member
}

// store is this manager's copy of the cluster's state, nil on other nodes.
func (d *Daemon) store() *store.Store {
	if m := d.current(); m != nil && m.manager != nil {
		return m.manager.Store()
	}
	return nil
}

// Propose implements dockerapi.Proposer.
func (d *Daemon) Propose(ctx context.Context, ops []api.Op) error {
	m := d.current()
	if m == nil || m.manager == nil {
		return api.Errorf(api.Unavailable, "This node is not a swarm manager.")
	}
	return m.manager.Propose(ctx, ops)
}

// Info implements dockerapi.Lifecycle.
func (d *Daemon) Info() swarm.Info {
	d.mu.Lock()
	m, busy := d.member, d.busy
	d.mu.Unlock()
	info := swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}
	if m == nil {
		if busy {
			info.LocalNodeState = swarm.LocalNodeStatePending
		}
		return info
	}
	info.LocalNodeState = swarm.LocalNodeStateActive
	info.NodeID = m.state.NodeID
	info.NodeAddr = d.report(m.state, m.source.Current()).Addr
	info.ControlAvailable = m.manager != nil
	for _, addr := range m.managers() {
		info.RemoteManagers = append(info.RemoteManagers, swarm.Peer{Addr: addr})
	}
	if m.manager == nil {
		return info
	}
	view := m.manager.View()
	if c := view.Cluster(); c != nil {
		cluster := c.Swarm.ClusterInfo
		info.Cluster = &cluster
	}
	info.RemoteManagers = m.manager.Peers()
	for _, n := range view.Nodes() {
		info.Nodes++
		if n.Spec.Role == swarm.NodeRoleManager {
			info.Managers++
		}
	}
	return info
}

// localNetworks are the networks that every Docker node lists besides those that
// its managers' state tells of. A task without any network has a leg on the gateway
// bridge.
type localNetworks struct{ d *Daemon }

// List implements dockerapi.LocalNetworks.
func (l localNetworks) List() []network.Inspect {
	out := l.assigned()
	for _, n := range [][2]string{{"bridge", "bridge"}, {"host", "host"}, {"none", "null"}} {
		out = append(out, network.Inspect{Network: network.Network{
			Name: n[0], ID: api.NodeNetworkID(n[0]), Scope: "local", Driver: n[1], EnableIPv4: true,
			IPAM:    network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
			Options: map[string]string{}, Labels: map[string]string{},
		}})
	}
	return out
}

// assigned are the cluster's networks on a worker, as far as it was told of them.
func (l localNetworks) assigned() []network.Inspect {
	a := l.d.agent()
	if a == nil || l.d.store() != nil {
		return nil
	}
	known := a.Assigned()
	var tasks []*api.Task
	for _, t := range agent.List(known.Tasks) {
		if status, here := a.Status(t.ID); here {
			running := *t
			running.Status = status
			tasks = append(tasks, &running)
		}
	}
	return dockerapi.ShowAssigned(agent.List(known.Networks), tasks)
}
