package daemon

import (
	"net"
	goruntime "runtime"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/node/agent"
	"shoal/node/engineapi"
)

// source is what the session with the leader reports from: the node's own
// description, and the agent's statuses once there is an agent.
type source struct{ m *member }

func (s source) agent() *agent.Agent {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	return s.m.agent
}

// Node implements dispatch.Source.
func (s source) Node() api.NodeReport {
	r := s.m.d.report(s.m.state, s.m.source.Current())
	s.m.mu.Lock()
	n := s.m.net
	s.m.mu.Unlock()
	if n != nil {
		n.describe(&r)
	}
	return r
}

// All implements dispatch.Source.
func (s source) All() []api.TaskReport {
	if a := s.agent(); a != nil {
		return a.All()
	}
	return nil
}

// Unreported implements dispatch.Source.
func (s source) Unreported() []api.TaskReport {
	if a := s.agent(); a != nil {
		return a.Unreported()
	}
	return nil
}

// Requeue implements dispatch.Source.
func (s source) Requeue(reports []api.TaskReport) {
	if a := s.agent(); a != nil {
		a.Requeue(reports)
	}
}

// Level implements dispatch.Source.
func (s source) Level() uint64 {
	if a := s.agent(); a != nil {
		return a.Level()
	}
	return 0
}

// Beyond implements dispatch.Source.
func (s source) Beyond() *api.Beyond {
	if a := s.agent(); a != nil {
		return a.Beyond()
	}
	return nil
}

// Wake implements dispatch.Source.
func (s source) Wake() <-chan struct{} {
	if a := s.agent(); a != nil {
		return a.Wake()
	}
	return nil
}

// report describes the node to the managers.
func (d *Daemon) report(state *membership, creds *ca.Credentials) api.NodeReport {
	nanoCPUs, memory := engineapi.Resources()
	host, _, err := net.SplitHostPort(state.AdvertiseAddr)
	if err != nil {
		host = state.AdvertiseAddr
	}
	can := d.can.report()
	r := api.NodeReport{
		Addr: host, DataPathAddr: state.DataPathAddr, Capabilities: can, Message: strings.Join(can.Messages, "; "),
		Description: swarm.NodeDescription{
			Hostname: d.cfg.Hostname, Platform: agent.Platform(),
			Resources: swarm.Resources{NanoCPUs: nanoCPUs, MemoryBytes: memory},
			Engine: swarm.EngineDescription{
				EngineVersion: d.cfg.Version,
				Labels:        map[string]string{"shoal.balancer": d.balancer.Name(), "shoal.go": goruntime.Version()},
				Plugins: []swarm.PluginDescription{
					{Type: "Log", Name: "json-file"}, {Type: "Network", Name: "overlay"}, {Type: "Volume", Name: "local"},
				},
			},
			TLSInfo: creds.TLSInfo(),
		},
	}
	if state.Role == swarm.NodeRoleManager {
		r.RaftAddr = state.AdvertiseAddr
	}
	return r
}

// agent runs this node's tasks; nil outside a cluster, and before the managers have
// told this node of itself.
func (d *Daemon) agent() *agent.Agent {
	if m := d.current(); m != nil {
		return source{m}.agent()
	}
	return nil
}

// health says how a task of this node is, nil without a health check.
func (d *Daemon) health(taskID string) *container.Health {
	if a := d.agent(); a != nil {
		return a.Health(taskID)
	}
	return nil
}

// hostPorts are those of this node that lead to a task of it alone.
func (d *Daemon) hostPorts(taskID string) []swarm.PortConfig {
	if a := d.agent(); a != nil {
		st, _ := a.Status(taskID)
		return st.PortStatus.Ports
	}
	return nil
}

// networkMode is the network of the node's own that a task of it is on, "" for none.
func (d *Daemon) networkMode(taskID string) string {
	a := d.agent()
	if a == nil {
		return ""
	}
	switch t := a.Task(taskID); {
	case t != nil && t.OnHost():
		return api.NetworkHost
	case t != nil && t.OnNone():
		return api.NetworkNone
	}
	return ""
}
