package alloc

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// dual makes a network of both families, or of IPv6 alone.
func (w *world) dual(name string, only6 bool, configs ...swarm.IPAMConfig) *api.Network {
	n := &api.Network{NoIPv4: only6}
	n.ID, n.Spec.Name, n.Spec.IPv6Enabled = name, name, true
	if len(configs) > 0 {
		n.Spec.IPAMOptions = &swarm.IPAMOptions{Configs: configs}
	}
	w.put(n)
	return n
}

func subnetsOf(n *api.Network) (out []string) {
	for _, c := range n.IPAMOptions.Configs {
		out = append(out, c.Subnet.String()+" "+c.Gateway.String())
	}
	return out
}

func TestNetworksOfBothFamilies(t *testing.T) {
	w := newWorld()
	w.cluster.ID = "c1"
	w.a.SetCluster(w.cluster)
	pool := Pool6("c1")
	if pool.Bits() != 48 || !netip.MustParsePrefix("fd00::/8").Overlaps(pool) || pool == Pool6("c2") {
		t.Fatalf("the pool of c1 is %s", pool)
	}
	nth := func(n byte) string {
		b := pool.Addr().As16()
		b[7] = n
		return netip.PrefixFrom(netip.AddrFrom16(b), 64).String()
	}
	w.dual("a", false)
	w.dual("b", true)
	w.dual("c", false, config("fd00:60::/64"), config("10.60.0.0/24"))
	w.dual("d", false, config("fd00:61::/64"))
	w.network("e", config("fd00:62::/64")) // from before there was a switch
	w.plan()
	for id, want := range map[string][]string{
		"a": {"10.0.2.0/24 10.0.2.1", nth(0) + " " + netip.MustParsePrefix(nth(0)).Addr().Next().String()},
		"b": {nth(1) + " " + netip.MustParsePrefix(nth(1)).Addr().Next().String()},
		"c": {"10.60.0.0/24 10.60.0.1", "fd00:60::/64 fd00:60::1"},
	} {
		if got := subnetsOf(w.networks[id]); !reflect.DeepEqual(got, want) {
			t.Errorf("%s has %v, want %v", id, got, want)
		}
	}
	for _, id := range []string{"d", "e"} {
		if got := subnetsOf(w.networks[id]); len(got) != 2 || !strings.HasPrefix(got[0], "10.0.") || !strings.HasPrefix(got[1], "fd00:6") {
			t.Errorf("%s has %v", id, got)
		}
	}
	w.a = Load(w)
	w.dual("f", false)
	w.plan()
	if got := subnetsOf(w.networks["f"]); !strings.HasPrefix(got[1], nth(2)) {
		t.Errorf("after loading anew, f has %v, want %s", got, nth(2))
	}
}

func TestPoolsOfIPv6(t *testing.T) {
	w := newWorld()
	w.cluster.DefaultAddrPool = []netip.Prefix{netip.MustParsePrefix("fd12:3456::/63")}
	w.a.SetCluster(w.cluster)
	for _, id := range []string{"a", "b", "c"} {
		w.dual(id, false)
	}
	w.plan()
	if got := subnetsOf(w.networks["b"]); !reflect.DeepEqual(got, []string{"10.0.1.0/24 10.0.1.1", "fd12:3456:0:1::/64 fd12:3456:0:1::1"}) {
		t.Errorf("b has %v", got)
	}
	if err := w.a.Trouble()["c"]; err == nil || !strings.Contains(err.Error(), "IPv6 address pool") {
		t.Errorf("c: %v", err)
	}
}

func TestAddressesOfBothFamilies(t *testing.T) {
	w := newWorld()
	w.dual("two", false, config("10.60.0.0/24"), config("fd00:60::/64"))
	w.dual("six", true, config("fd00:61::/64"))
	w.service("web", nil, "two", "six")
	w.plan()
	task := w.task("web")
	w.plan()
	var vips, addrs []string
	for _, v := range w.services["web"].Endpoint.VirtualIPs {
		vips = append(vips, v.NetworkID+" "+v.Addr.String())
	}
	for _, a := range w.tasks[task].NetworksAttachments {
		addrs = append(addrs, fmt.Sprint(a.Network.ID, " ", a.Addresses))
	}
	if want := []string{"two 10.60.0.2/24", "two fd00:60::2/64", "six fd00:61::2/64"}; !reflect.DeepEqual(vips, want) {
		t.Errorf("virtual IPs %v, want %v", vips, want)
	}
	if want := []string{"two [10.60.0.3/24 fd00:60::3/64]", "six [fd00:61::3/64]"}; !reflect.DeepEqual(addrs, want) {
		t.Errorf("the task has %v, want %v", addrs, want)
	}
}

// TestServicesGainTheSecondFamily: a service from before virtual IPs had two
// families keeps the one it has.
func TestServicesGainTheSecondFamily(t *testing.T) {
	w := newWorld()
	w.dual("two", false, config("10.60.0.0/24"), config("fd00:60::/64"))
	w.plan()
	w.service("web", nil, "two")
	old := *w.services["web"]
	old.Endpoint.VirtualIPs = []swarm.EndpointVirtualIP{{NetworkID: "two", Addr: netip.MustParsePrefix("10.60.0.9/24")}}
	old.Endpoint.Spec.Mode = swarm.ResolutionModeVIP
	w.put(&old)
	w.a = Load(w)
	w.plan()
	got := w.services["web"].Endpoint.VirtualIPs
	if len(got) != 2 || got[0].Addr.String() != "10.60.0.9/24" || !got[1].Addr.Addr().Is6() {
		t.Errorf("virtual IPs %v", got)
	}
	if w.plan() != 0 {
		t.Error("planned again, something changes")
	}
}
