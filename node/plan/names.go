package plan

import (
	"slices"
	"strings"

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
		zn.Services = append(zn.Services, c.containerNames(zn)...)
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
	// Those that start are found by their own names only, for a group whose members
	// wait for each other before any of them listens.
	at := place{s.ID, networkID}
	for _, r := range slices.Concat(c.spots[at], c.starting[at]) {
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

// containerNames are those of the containers that are no service's, each known by
// its name and its aliases, which several may share: they answer together. What is
// a service's name stays that: a container that has it too is known by its id.
func (c *compiler) containerNames(n zone.Network) (out []zone.Service) {
	taken := map[string]bool{}
	for _, s := range n.Services {
		taken[strings.ToLower(s.Name)] = true
	}
	for _, r := range c.alone[n.ID] {
		name := r.Value.TaskName
		if taken[strings.ToLower(name)] {
			name = r.Value.ContainerID[:min(shortID, len(r.Value.ContainerID))]
		}
		s := zone.Service{Name: r.Key, Aliases: []string{name}}
		for _, alias := range r.at.Aliases {
			if !taken[strings.ToLower(alias)] && alias != name {
				s.Aliases = append(s.Aliases, alias)
			}
		}
		s.Tasks = []zone.Task{{
			Name: name, FullName: name, ContainerID: r.Value.ContainerID, Hostname: r.Value.Hostname, Addrs: r.at.Addrs, Draining: r.rests,
		}}
		out = append(out, s)
	}
	return out
}

// shortID is how many digits of a container's id are a name too.
const shortID = 12

// addPort adds a port that is not there yet, whatever name it has.
func addPort(ports []zone.Port, p zone.Port) []zone.Port {
	same := func(q zone.Port) bool { return q.Protocol == p.Protocol && q.Port == p.Port }
	if p.Port == 0 || slices.ContainsFunc(ports, same) {
		return ports
	}
	return append(ports, p)
}
