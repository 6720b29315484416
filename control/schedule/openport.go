package schedule

import (
	"slices"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
)

// The ports in host mode that a spec leaves open are chosen from this range, the
// one that kernels take for what nobody chose.
const (
	FirstOpenPort = 32768
	LastOpenPort  = 60999
)

// openPorts returns the task's ports with numbers for those that its spec leaves
// open, free on the node. A node whose whole range is taken leaves them open.
func (n *node) openPorts(ports []swarm.PortConfig) []swarm.PortConfig {
	out := ports
	taken := map[hostPort]bool{}
	for i, p := range ports {
		if p.PublishMode != swarm.PortConfigPublishModeHost || p.PublishedPort != 0 {
			continue
		}
		if &out[0] == &ports[0] {
			out = slices.Clone(ports)
		}
		free := n.openPort(protocolOf(p), taken)
		taken[free] = true
		out[i].PublishedPort = free.port
	}
	return out
}

// openPort chooses the next free port after the one chosen last, so that a port
// that was given up rests before another task has it.
func (n *node) openPort(protocol network.IPProtocol, taken map[hostPort]bool) hostPort {
	for range LastOpenPort - FirstOpenPort + 1 {
		if n.lastPort++; n.lastPort < FirstOpenPort || n.lastPort > LastOpenPort {
			n.lastPort = FirstOpenPort
		}
		if p := (hostPort{protocol, n.lastPort}); n.ports[p] == 0 && !taken[p] {
			return p
		}
	}
	return hostPort{protocol: protocol}
}

func protocolOf(p swarm.PortConfig) network.IPProtocol {
	if p.Protocol == "" {
		return network.TCP
	}
	return p.Protocol
}
