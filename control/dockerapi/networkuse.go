package dockerapi

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/alloc"
	"shoal/control/api"
	"shoal/control/store"
)

// usersOf are the services that stand on the network. On the ingress network
// these are the services with a port in the routing mesh.
func usersOf(v *store.View, n *api.Network) []*api.Service {
	if !n.Spec.Ingress {
		return v.ServicesByNetwork(n.ID)
	}
	var users []*api.Service
	for _, s := range v.Services() {
		if needsIngress(&s.Spec) {
			users = append(users, s)
		}
	}
	return users
}

// describeUse adds which nodes take part in the network and what of it runs on
// this one, self; when verbose, which services and running tasks stand on it, and how many
// of its addresses are given away.
func describeUse(v *store.View, out *network.Inspect, self string, verbose bool) {
	n := v.Network(out.ID)
	if n == nil {
		return
	}
	peers := map[string]network.PeerInfo{}
	services := map[string]network.ServiceInfo{}
	for _, s := range usersOf(v, n) {
		services[s.Spec.Name] = serviceInfo(s, n.ID)
	}
	for _, t := range v.TasksByNetwork(n.ID) {
		addr, ok := addressIn(t, n.ID)
		node := v.Node(t.NodeID)
		if !ok || node == nil {
			continue
		}
		peers[node.ID] = peerInfo(node)
		if t.NodeID == self {
			addContainer(out, t, n.ID)
		}
		if info, known := services[t.ServiceName]; known && t.Wanted() && t.Status.State == swarm.TaskStateRunning {
			info.Tasks = append(info.Tasks, network.Task{
				Name: taskName(t), EndpointID: t.ID, EndpointIP: addr,
				Info: map[string]string{"Host IP": peers[node.ID].IP.String()},
			})
			services[t.ServiceName] = info
		}
	}
	for _, p := range peers {
		out.Peers = append(out.Peers, p)
	}
	slices.SortFunc(out.Peers, func(x, y network.PeerInfo) int { return strings.Compare(x.Name, y.Name) })
	if !verbose {
		return
	}
	for _, info := range services {
		slices.SortFunc(info.Tasks, func(x, y network.Task) int { return strings.Compare(x.Name, y.Name) })
	}
	out.Services = services
	out.Status = &network.Status{IPAM: network.IPAMStatus{Subnets: network.SubnetStatuses{}}}
	for _, u := range alloc.UsageOf(v, n) {
		out.Status.IPAM.Subnets[u.Subnet] = network.SubnetStatus{IPsInUse: u.InUse, DynamicIPsAvailable: u.Free}
	}
}

// hardwareAddr is that of the endpoint with the IPv4 address, as nodes make it.
func hardwareAddr(addr netip.Addr) network.HardwareAddr {
	raw := addr.As4()
	return append(network.HardwareAddr{0x02, 0x42}, raw[:]...)
}

// addContainer lists a task of this node as a container on the network.
func addContainer(out *network.Inspect, t *api.Task, networkID string) {
	c := t.Status.ContainerStatus
	if c == nil || c.ContainerID == "" {
		return
	}
	shown := network.EndpointResource{Name: taskName(t), EndpointID: t.ID}
	for _, a := range t.NetworksAttachments {
		for _, p := range a.Addresses {
			switch {
			case a.Network.ID != networkID:
			case p.Addr().Is4():
				shown.IPv4Address, shown.MacAddress = p, hardwareAddr(p.Addr())
			default:
				shown.IPv6Address = p
			}
		}
	}
	out.Containers[c.ContainerID] = shown
}

func serviceInfo(s *api.Service, networkID string) network.ServiceInfo {
	info := network.ServiceInfo{Ports: []string{}, Tasks: []network.Task{}}
	for _, ip := range s.Endpoint.VirtualIPs {
		// There is room for one: the first is of IPv4 where the network has it.
		if ip.NetworkID == networkID && !info.VIP.IsValid() {
			info.VIP = ip.Addr.Addr()
		}
	}
	for _, p := range s.Endpoint.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeIngress {
			info.Ports = append(info.Ports, fmt.Sprintf("Target: %d, Publish: %d", p.TargetPort, p.PublishedPort))
		}
	}
	return info
}

func addressIn(t *api.Task, networkID string) (netip.Addr, bool) {
	for _, a := range t.NetworksAttachments {
		if a.Network.ID == networkID && len(a.Addresses) > 0 {
			return a.Addresses[0].Addr(), true
		}
	}
	return netip.Addr{}, false
}

// peerInfo names a node as a tunnel end.
func peerInfo(n *api.Node) network.PeerInfo {
	addr := n.DataPathAddr
	if !addr.IsValid() {
		// A node that has not reported its tunnel address yet shows its own.
		addr, _ = netip.ParseAddr(n.Status.Addr)
	}
	name := n.ID
	if len(name) > 12 {
		name = name[:12]
	}
	return network.PeerInfo{Name: name, IP: addr}
}
