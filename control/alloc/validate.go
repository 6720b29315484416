package alloc

import (
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// NetworkView is what ValidateNetwork reads.
type NetworkView interface {
	Cluster() *api.Cluster
	Nodes() []*api.Node
	Networks() []*api.Network
}

// ValidateNetwork says, before a network is created, whether the subnets,
// ranges, gateways and identifier that its spec names can be given to it, and
// whether the cluster's pools have a subnet where it names none. Its errors have
// the kind Invalid, Forbidden for an overlap, or Conflict for an identifier that
// another network has, and Docker's words where it has any.
func ValidateNetwork(v NetworkView, n *api.Network) error {
	if !managed(n) {
		return nil
	}
	if err := checkVNI(v, n); err != nil {
		return err
	}
	if err := checkWishes(v, n); err != nil {
		return err
	}
	return checkPools(v, n)
}

// checkWishes refuses subnets and reserved addresses that cannot be had.
func checkWishes(v NetworkView, n *api.Network) error {
	if n.Spec.IPAMOptions == nil {
		return nil
	}
	if err := checkConfigs(n); err != nil {
		return err
	}
	if err := checkReserved(n); err != nil {
		return err
	}
	var taken []netip.Prefix
	for _, other := range v.Networks() {
		if other.ID == n.ID || !managed(other) {
			continue
		}
		taken = append(taken, wishedOrGiven(other)...)
	}
	return checkOverlap(n, taken)
}

// checkPools refuses a network that no subnet of the cluster's pools would be
// left for, once the networks before it have theirs. What removed networks hold
// counts as free, for it will be.
func checkPools(v NetworkView, n *api.Network) error {
	a := Load(networksAlone{v})
	a.planNetworks()
	if _, err := a.configs(n); err != nil {
		return api.Errorf(api.Invalid, "%w: name one with --subnet, or give the swarm a larger --default-addr-pool when it is made", err)
	}
	return nil
}

// networksAlone is a cluster without anything that is on its networks, or was.
type networksAlone struct{ NetworkView }

func (networksAlone) Services() []*api.Service { return nil }
func (networksAlone) Tasks() []*api.Task       { return nil }
func (networksAlone) Retired() []*api.Retired  { return nil }

// checkVNI refuses an identifier that is none, or is another network's. One of a
// network that was removed is waited for.
func checkVNI(v NetworkView, n *api.Network) error {
	d := n.Spec.DriverConfiguration
	if d == nil || d.Options[vniOption] == "" {
		return nil
	}
	vni, err := readVNI(n, d.Options[vniOption])
	if err != nil {
		return err
	}
	for _, other := range v.Networks() {
		if other.ID != n.ID && other.VNI == vni {
			return api.Errorf(api.Conflict, "network %s: VXLAN identifier %d belongs to network %s", n.Spec.Name, vni, other.Spec.Name)
		}
	}
	return nil
}

// wishedOrGiven returns the subnets a network has, or will have.
func wishedOrGiven(n *api.Network) []netip.Prefix {
	options := n.IPAMOptions
	if options == nil {
		options = n.Spec.IPAMOptions
	}
	if options == nil {
		return nil
	}
	var subnets []netip.Prefix
	for _, c := range options.Configs {
		if c.Subnet.IsValid() {
			subnets = append(subnets, c.Subnet.Masked())
		}
	}
	return subnets
}

// checkConfigs refuses configurations that are wrong in themselves.
func checkConfigs(n *api.Network) error {
	var own []netip.Prefix
	for _, c := range n.Spec.IPAMOptions.Configs {
		switch {
		case !c.Subnet.IsValid():
			return api.Errorf(api.Invalid, "invalid network config: a gateway or range of network %s needs a subnet", n.Spec.Name)
		case n.NoIPv4 && c.Subnet.Addr().Is4():
			return api.Errorf(api.Invalid, "invalid network config: network %s is without IPv4, but names the IPv4 subnet %s", n.Spec.Name, c.Subnet)
		case c.Subnet.Addr().Is4In6() || c.Subnet.Addr().Is6() && (c.Subnet.Addr().IsLinkLocalUnicast() || c.Subnet.Addr().IsMulticast()):
			return api.Errorf(api.Invalid, "invalid network config: subnet %s of network %s is not one that tasks can have addresses of", c.Subnet, n.Spec.Name)
		case c.Subnet.Addr().BitLen()-c.Subnet.Bits() < 2:
			return api.Errorf(api.Invalid, "invalid network config: subnet %s of network %s has no room for a gateway and a task", c.Subnet, n.Spec.Name)
		case c.Range.IsValid() && (!c.Subnet.Overlaps(c.Range) || c.Range.Bits() < c.Subnet.Bits()):
			return api.Errorf(api.Invalid, "invalid network config: range %s is outside of subnet %s", c.Range, c.Subnet)
		case c.Gateway.IsValid() && !c.Subnet.Contains(c.Gateway):
			return api.Errorf(api.Invalid, "no matching subnet for gateway %s", c.Gateway)
		case overlapping(own, c.Subnet).IsValid():
			return errOverlap()
		}
		own = append(own, c.Subnet.Masked())
	}
	return nil
}

// checkReserved refuses a reserved address that is in none of the subnets.
func checkReserved(n *api.Network) error {
	for _, addr := range n.Reserved {
		inside := slices.ContainsFunc(n.Spec.IPAMOptions.Configs, func(c swarm.IPAMConfig) bool { return c.Subnet.Contains(addr) })
		if !inside {
			return api.Errorf(api.Invalid, "no matching subnet for aux-address %s", addr)
		}
	}
	return nil
}

func checkOverlap(n *api.Network, taken []netip.Prefix) error {
	for _, c := range n.Spec.IPAMOptions.Configs {
		if overlapping(taken, c.Subnet).IsValid() {
			return errOverlap()
		}
	}
	return nil
}

func errOverlap() error {
	return api.Errorf(api.Forbidden, "invalid pool request: Pool overlaps with other one on this address space")
}
