package plan

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/overlay/vxlan"
)

// TestSubnetsOfOneNetworkReachEachOther: a task has an address in one of its
// network's subnets and a way to the others; a removed network carries its last
// tasks but gives up its name and, as the ingress network, its place.
func TestSubnetsOfOneNetworkReachEachOther(t *testing.T) {
	two := &api.Network{VNI: 4097}
	two.ID, two.Spec.Name = "two", "two"
	two.IPAMOptions = &swarm.IPAMOptions{}
	for _, subnet := range []string{"10.1.0.0/29", "10.2.0.0/29", "fd00::/64"} {
		two.IPAMOptions.Configs = append(two.IPAMOptions.Configs, swarm.IPAMConfig{Subnet: netip.MustParsePrefix(subnet)})
	}
	leg := vxlan.Interface{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.2.0.3/29")}}
	if got, want := elsewhere(two, leg), []vxlan.Route{{Dst: netip.MustParsePrefix("10.1.0.0/29"), Interface: "eth0"}}; !slices.Equal(got, want) {
		t.Errorf("routes %v, want %v", got, want)
	}
}

func TestRemovedNetworks(t *testing.T) {
	ingress := func(id string, removed bool) *api.Network {
		n := &api.Network{VNI: uint32(4096 + len(id)), Removed: removed}
		n.ID, n.Spec.Name, n.Spec.Ingress = id, "ingress", true
		return n
	}
	for _, networks := range [][]*api.Network{{ingress("old", true), ingress("newer", false)}, {ingress("newer", false), ingress("old", true)}} {
		c := newCompiler(Input{Networks: networks})
		if c.ingress == nil || c.ingress.ID != "newer" {
			t.Errorf("the routing mesh is on %+v", c.ingress)
		}
	}
}
