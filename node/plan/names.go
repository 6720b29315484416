package plan

import (
	"slices"

	"shoal/dns/zone"
)

// zone lists the names of every network that a local task is on.
func (c *compiler) zone() zone.Model {
	var m zone.Model
	for _, n := range c.used {
		if n == c.ingress {
			continue
		}
		zn := zone.Network{ID: n.ID, Name: n.Spec.Name}
		for _, a := range c.attached[n.ID] {
			zn.Services = append(zn.Services, c.serviceNames(a, n.ID))
		}
		m.Networks = append(m.Networks, zn)
	}
	return m
}

func (c *compiler) serviceNames(a attached, networkID string) zone.Service {
	s := a.service
	out := zone.Service{Name: s.Spec.Name, Aliases: slices.Clone(a.aliases)}
	for _, v := range s.Endpoint.VirtualIPs {
		if v.NetworkID == networkID && v.Addr.IsValid() {
			out.VirtualIPs = append(out.VirtualIPs, v.Addr.Addr())
		}
	}
	for _, p := range s.Endpoint.Ports {
		out.Ports = addPort(out.Ports, zone.Port{Name: p.Name, Protocol: string(p.Protocol), Port: uint16(p.TargetPort)})
	}
	for _, r := range c.spots[place{s.ID, networkID}] {
		out.Tasks = append(out.Tasks, zone.Task{
			Name: r.Value.TaskName, FullName: r.Value.TaskName + "." + r.Key,
			ContainerID: r.Value.ContainerID, Hostname: r.Value.Hostname, Addrs: r.at.Addrs, Draining: r.rests,
		})
		for _, p := range r.Value.Ports { // those that the image exposes, too
			out.Ports = addPort(out.Ports, zone.Port{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
		}
	}
	return out
}

// addPort adds a port that is not there yet, whatever name it has.
func addPort(ports []zone.Port, p zone.Port) []zone.Port {
	same := func(q zone.Port) bool { return q.Protocol == p.Protocol && q.Port == p.Port }
	if p.Port == 0 || slices.ContainsFunc(ports, same) {
		return ports
	}
	return append(ports, p)
}
