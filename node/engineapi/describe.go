package engineapi

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"shoal/control/api"
	"shoal/node/plan"
	"shoal/node/standalone"
)

// describeOwn adds to a line of docker ps what is known of a container that is no
// service's.
func (a *API) describeOwn(s *container.Summary) {
	r, ours := a.record(s.ID)
	if !ours {
		return
	}
	s.Command = strings.Join(r.Command, " ")
	s.HostConfig.NetworkMode = string(r.Wish.Host.NetworkMode)
	s.NetworkSettings.Networks = endpointsOf(r)
}

// inspectOwn adds what docker inspect shows of such a container: what the client
// asked for, and its places on its networks.
func (a *API) inspectOwn(out *container.InspectResponse) {
	r, ours := a.record(out.ID)
	if !ours {
		return
	}
	config, host := *r.Wish.Config, *r.Wish.Host
	if config.Hostname == "" && host.NetworkMode.IsHost() {
		config.Hostname = a.cfg.Hostname
	}
	if config.Hostname == "" {
		config.Hostname = r.ID[:12]
	}
	out.Config, out.HostConfig = &config, &host
	if len(r.Command) > 0 {
		out.Path, out.Args = r.Command[0], r.Command[1:]
	}
	out.NetworkSettings = &container.NetworkSettings{Networks: endpointsOf(r)}
}

func endpointsOf(r standalone.Record) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	for i, n := range r.Wish.Networks {
		e := &network.EndpointSettings{NetworkID: n.Target, Aliases: n.Aliases}
		if api.NodeNetwork(n.Target) == nil { // there nobody has a name
			e.DNSNames = namesOf(r, n.Aliases)
		}
		out[r.NetworkNames[i]] = e
		for _, at := range r.Attachments {
			if at.Network.ID == n.Target && r.Wanted {
				addressesOf(e, at.Addresses)
				e.EndpointID = r.TaskID
			}
		}
	}
	return out
}

func addressesOf(e *network.EndpointSettings, addrs []netip.Prefix) {
	for _, p := range addrs {
		switch {
		case p.Addr().Is4():
			e.IPAddress, e.IPPrefixLen = p.Addr(), p.Bits()
			if mac, err := net.ParseMAC(plan.MAC(p.Addr())); err == nil {
				e.MacAddress = network.HardwareAddr(mac)
			}
		default:
			e.GlobalIPv6Address, e.GlobalIPv6PrefixLen = p.Addr(), p.Bits()
		}
	}
}

// namesOf are the names that the container answers to on a network, each once.
func namesOf(r standalone.Record, aliases []string) (names []string) {
	for _, name := range slices.Concat([]string{r.Name}, aliases, []string{r.ID[:12], r.Wish.Spec.Hostname}) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
