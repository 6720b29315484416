package plan

import (
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dns/zone"
	"shoal/overlay/endpoint"
)

// zone lists the names of every network that a local task is on.
func (c *compiler) zone() zone.Model {
	var m zone.Model
	for _, n := range c.used {
		if n == c.ingress {
			continue
		}
		zn := zone.Network{ID: n.ID, Name: n.Spec.Name}
		for _, s := range c.in.Services {
			if target, on := target(s, n); on {
				zn.Services = append(zn.Services, c.serviceNames(s, n.ID, target.Aliases))
			}
		}
		m.Networks = append(m.Networks, zn)
	}
	return m
}

// target finds the service's attachment to the network.
func target(s *api.Service, n *api.Network) (swarm.NetworkAttachmentConfig, bool) {
	for _, t := range s.Spec.TaskTemplate.Networks {
		if t.Target == n.ID || t.Target == n.Spec.Name {
			return t, true
		}
	}
	return swarm.NetworkAttachmentConfig{}, false
}

func (c *compiler) serviceNames(s *api.Service, networkID string, aliases []string) zone.Service {
	out := zone.Service{Name: s.Spec.Name, Aliases: slices.Clone(aliases)}
	for _, v := range s.Endpoint.VirtualIPs {
		if v.NetworkID == networkID && v.Addr.IsValid() {
			out.VirtualIPs = append(out.VirtualIPs, v.Addr.Addr())
		}
	}
	for _, p := range s.Endpoint.Ports {
		out.Ports = append(out.Ports, zone.Port{Name: p.Name, Protocol: string(p.Protocol), Port: uint16(p.TargetPort)})
	}
	for _, r := range c.records {
		a, on := attachment(r, networkID)
		if !on || r.Value.ServiceID != s.ID || c.dead[r.Owner] {
			continue
		}
		out.Tasks = append(out.Tasks, zone.Task{
			Name: r.Value.TaskName, FullName: r.Value.TaskName + "." + r.Key,
			ContainerID: r.Value.ContainerID, Hostname: r.Value.Hostname, Addrs: a.Addrs,
			Draining: r.Value.State == endpoint.Draining || c.in.Silent[r.Owner] && r.Owner != c.in.Self.ID,
		})
	}
	return out
}
