package alloc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

const (
	overlayDriver = "overlay"
	// vniOption is where Docker writes, and an operator may wish, the VXLAN
	// identifier of an overlay network.
	vniOption = "com.docker.network.driver.overlay.vxlanid_list"
)

// netState is a network with its addresses in use. Its network is nil when only
// its addresses are known.
type netState struct {
	*api.Network
	pools []*pool
	used  map[netip.Addr]int
	// retired counts the addresses in used that wait for the nodes.
	retired int
	// full is set when no address was left, until one is freed.
	full bool
}

func (n *netState) resume(addr netip.Addr, age time.Time) {
	for _, p := range n.pools {
		p.resume(addr, age)
	}
}

// allocated says whether the network has all it needs to be used.
func (n *netState) allocated() bool {
	return n.Network != nil && (!managed(n.Network) || len(n.pools) > 0)
}

// give takes the next address of each family, IPv4 first. Without a free one it
// takes none.
func (n *netState) give() ([]netip.Prefix, error) {
	if n.full {
		return nil, n.exhausted()
	}
	var given []netip.Prefix
	for _, six := range n.families() {
		addr, err := n.giveOne(six)
		if err != nil {
			return nil, err
		}
		given = append(given, addr)
	}
	return given, nil
}

// families are those that the network has subnets of, IPv4 first; true is IPv6.
func (n *netState) families() (six []bool) {
	for _, want := range []bool{false, true} {
		if slices.ContainsFunc(n.pools, func(p *pool) bool { return p.six() == want }) {
			six = append(six, want)
		}
	}
	return six
}

// giveOne returns the next address of one family.
func (n *netState) giveOne(six bool) (netip.Prefix, error) {
	for _, p := range n.pools {
		if p.six() != six {
			continue
		}
		if addr, ok := p.next(n.used); ok {
			return netip.PrefixFrom(addr, p.subnet.Bits()), nil
		}
	}
	n.full = true
	return netip.Prefix{}, n.exhausted()
}

// has says whether the address is of one of the network's subnets.
func (n *netState) has(addr netip.Addr) bool {
	return slices.ContainsFunc(n.pools, func(p *pool) bool { return p.subnet.Contains(addr) })
}

func (n *netState) exhausted() error {
	subnets := ""
	for i, p := range n.pools {
		if i > 0 {
			subnets += ", "
		}
		subnets += p.subnet.String()
	}
	waiting := ""
	if n.retired > 0 {
		waiting = fmt.Sprintf(", %d of them until every node has confirmed that their last owners are gone", n.retired)
	}
	return api.Errorf(api.Unavailable, "no address left in network %s (%s): %d of its addresses are in use%s",
		n.Spec.Name, subnets, len(n.used), waiting)
}

// managed says whether the network's addresses come from here.
func managed(n *api.Network) bool {
	if n.Predefined || n.Spec.Scope == "local" {
		return false
	}
	d := n.Spec.DriverConfiguration
	return d == nil || d.Name == "" || d.Name == overlayDriver
}

func (a *Allocator) net(id string) *netState {
	n := a.networks[id]
	if n == nil {
		n = &netState{used: map[netip.Addr]int{}}
		a.networks[id] = n
	}
	return n
}

// find returns the network that a spec refers to by id or name, nil without one.
func (a *Allocator) find(ref string) *netState {
	if n := a.networks[ref]; n != nil && n.Network != nil {
		return n
	}
	for _, n := range a.networks {
		if n.Network != nil && n.Spec.Name == ref {
			return n
		}
	}
	return nil
}

// SetNetwork tells of a new or changed network.
func (a *Allocator) SetNetwork(obj *api.Network) {
	n := a.net(obj.ID)
	if n.Network != nil && n.VNI != 0 {
		delete(a.vnis, n.VNI)
	}
	old := n.pools
	n.Network, n.pools, n.full = obj, nil, false
	if obj.IPAMOptions != nil {
		for _, c := range obj.IPAMOptions.Configs {
			p := newPool(c, obj.Reserved)
			for _, before := range old {
				if before.subnet == p.subnet {
					p.cursor, p.youngest = before.cursor, before.youngest
				}
			}
			n.pools = append(n.pools, p)
		}
	}
	if obj.VNI != 0 {
		a.vnis[obj.VNI] = obj.ID
	}
	if obj.Spec.Ingress {
		a.ingress = obj.ID
	}
	a.todoNetworks[obj.ID] = true
}

// DropNetwork tells that a network is gone. Addresses that tasks still hold in
// it stay known.
func (a *Allocator) DropNetwork(id string) {
	n := a.networks[id]
	if n == nil || n.Network == nil {
		return
	}
	if n.VNI != 0 && a.vnis[n.VNI] == id {
		delete(a.vnis, n.VNI)
	}
	n.Network, n.pools = nil, nil
	if len(n.used) == 0 {
		delete(a.networks, id)
	}
	if a.ingress == id {
		a.ingress = ""
	}
	delete(a.todoNetworks, id)
	delete(a.trouble, id)
}

func (a *Allocator) resumeNetwork(n *api.Network) {
	if n.VNI != 0 {
		a.lastVNI = n.VNI
	}
	if n.IPAMOptions != nil {
		for _, c := range n.IPAMOptions.Configs {
			a.subnets.resume(c.Subnet)
			a.subnets6.resume(c.Subnet)
		}
	}
}

// planNetworks gives subnets and identifiers, first to networks that name their
// subnet: what is left is for the others.
func (a *Allocator) planNetworks() []api.Op {
	for id := range a.trouble {
		if a.networks[id] != nil {
			a.todoNetworks[id] = true
		}
	}
	ids := drain(a.todoNetworks)
	slices.SortStableFunc(ids, func(x, y string) int {
		return wishes(a.networks[y].Network) - wishes(a.networks[x].Network)
	})
	var ops []api.Op
	for _, id := range ids {
		n := a.networks[id]
		if !managed(n.Network) || (n.VNI != 0 && len(n.pools) > 0) {
			continue
		}
		next, err := a.allocateNetwork(n.Network)
		if err != nil {
			a.trouble[id] = err
			continue
		}
		delete(a.trouble, id)
		a.SetNetwork(next)
		delete(a.todoNetworks, id)
		ops = append(ops, api.Update(next))
	}
	return ops
}

// wishes ranks a network: the ingress first, then those that name a subnet.
func wishes(n *api.Network) int {
	switch {
	case n.Spec.IPAMOptions != nil && len(n.Spec.IPAMOptions.Configs) > 0:
		return 2
	case n.Spec.Ingress:
		return 1
	}
	return 0
}

// allocateNetwork returns a copy of the network with subnets and identifier.
func (a *Allocator) allocateNetwork(n *api.Network) (*api.Network, error) {
	configs, err := a.configs(n)
	if err != nil {
		return nil, err
	}
	vni, err := a.vni(n)
	if err != nil {
		return nil, err
	}
	c := *n
	c.VNI = vni
	c.IPAMOptions = &swarm.IPAMOptions{Driver: swarm.Driver{Name: "default"}, Configs: configs}
	c.DriverState = swarm.Driver{Name: overlayDriver, Options: map[string]string{}}
	if d := n.Spec.DriverConfiguration; d != nil {
		for k, v := range d.Options {
			c.DriverState.Options[k] = v
		}
	}
	c.DriverState.Options[vniOption] = strconv.FormatUint(uint64(vni), 10)
	return &c, nil
}

// configs returns the network's subnets: those it wishes for, and of each family
// that it has but names none of, one from the cluster's pools. IPv4 comes first.
func (a *Allocator) configs(n *api.Network) ([]swarm.IPAMConfig, error) {
	var configs []swarm.IPAMConfig
	want4, want6 := !n.NoIPv4, n.Spec.IPv6Enabled
	if n.Spec.IPAMOptions != nil {
		if err := a.checkSubnets(n); err != nil {
			return nil, err
		}
		for _, c := range n.Spec.IPAMOptions.Configs {
			configs = append(configs, complete(c))
			want4, want6 = want4 && !c.Subnet.Addr().Is4(), want6 && !c.Subnet.Addr().Is6()
		}
	}
	var given []swarm.IPAMConfig
	for _, pools := range []struct {
		*subnets
		wanted bool
	}{{&a.subnets, want4}, {&a.subnets6, want6}} {
		if !pools.wanted {
			continue
		}
		subnet, err := pools.next(a.busy())
		if err != nil {
			return nil, err
		}
		given = append(given, complete(swarm.IPAMConfig{Subnet: subnet}))
	}
	configs = append(given, configs...)
	slices.SortStableFunc(configs, func(x, y swarm.IPAMConfig) int {
		return cmp.Compare(x.Subnet.Addr().BitLen(), y.Subnet.Addr().BitLen())
	})
	return configs, nil
}

// complete fills in the gateway: by default the first address of the range, or of
// the subnet.
func complete(c swarm.IPAMConfig) swarm.IPAMConfig {
	c.Subnet = c.Subnet.Masked()
	if !c.Gateway.IsValid() {
		c.Gateway = c.Subnet.Addr().Next()
		if c.Range.IsValid() && c.Gateway.Less(c.Range.Masked().Addr()) {
			c.Gateway = c.Range.Masked().Addr()
		}
	}
	return c
}

// vni returns the identifier that the network wishes for, or the next free one.
func (a *Allocator) vni(n *api.Network) (uint32, error) {
	if d := n.Spec.DriverConfiguration; d != nil && d.Options[vniOption] != "" {
		return a.wishedVNI(n, d.Options[vniOption])
	}
	if n.VNI != 0 {
		return n.VNI, nil
	}
	for range LastVNI - FirstVNI + 1 {
		if a.lastVNI++; a.lastVNI > LastVNI {
			a.lastVNI = FirstVNI
		}
		if a.vnis[a.lastVNI] == "" {
			return a.lastVNI, nil
		}
	}
	return 0, api.Errorf(api.Unavailable, "no VXLAN identifier left for network %s", n.Spec.Name)
}

func (a *Allocator) wishedVNI(n *api.Network, text string) (uint32, error) {
	vni, err := readVNI(n, text)
	if err != nil {
		return 0, err
	}
	owner := a.vnis[vni]
	if r := a.retired[owner]; r != nil {
		return 0, api.Errorf(api.Unavailable, "network %s: VXLAN identifier %d is free once every node has confirmed that the removed network %s is gone",
			n.Spec.Name, vni, r.Network.Spec.Name)
	}
	if owner != "" && owner != n.ID {
		return 0, api.Errorf(api.Conflict, "network %s: VXLAN identifier %d belongs to network %s", n.Spec.Name, vni, owner)
	}
	return vni, nil
}

// readVNI reads the first identifier of a list. Docker has one for each subnet;
// here a network is one segment.
func readVNI(n *api.Network, text string) (uint32, error) {
	first, _, _ := strings.Cut(text, ",")
	vni, err := strconv.ParseUint(first, 10, 24)
	if err != nil || vni == 0 || vni == api.ProbeVNI {
		return 0, api.Errorf(api.Invalid, "network %s: %q is no VXLAN identifier", n.Spec.Name, text)
	}
	return uint32(vni), nil
}
