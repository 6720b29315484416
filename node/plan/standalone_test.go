package plan

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dns/zone"
	"shoal/overlay/endpoint"
)

// Containers of no service are found by name, alias and id; those of one name
// answer together, a service keeps its name, and what drains keeps its own.
func TestNamesOfStandaloneContainers(t *testing.T) {
	n := &api.Network{VNI: 4097}
	n.ID, n.Spec.Name = "net", "front"
	service := &api.Service{}
	service.ID, service.Spec.Name = "s", "web"
	service.Spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "net"}}
	service.Endpoint.VirtualIPs = []swarm.EndpointVirtualIP{{NetworkID: "net", Addr: netip.MustParsePrefix("10.0.1.2/24")}}
	task := &api.Task{}
	task.ID = "t0"
	task.NetworksAttachments = []swarm.NetworkAttachment{{Network: n.Network, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.1.3/24")}}}
	record := func(owner, key, name, id, addr string, aliases ...string) endpoint.Record {
		return endpoint.Record{Owner: owner, Key: key, Value: endpoint.Value{TaskName: name, ContainerID: id, Attachments: []endpoint.Attachment{
			{NetworkID: "net", Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Aliases: aliases},
		}}}
	}
	in := Input{
		Self: Self{ID: "n1"}, Networks: []*api.Network{n}, Services: []*api.Service{service}, Local: []Local{{Task: task}},
		Records: []endpoint.Record{
			record("n1", "t1", "box", "aaaaaaaaaaaaaaaa", "10.0.1.11", "shop"),
			record("n2", "t2", "Box", "bbbbbbbbbbbbbbbb", "10.0.1.12"),
			record("n2", "t3", "web", "cccccccccccccccc", "10.0.1.13", "other", "WEB"),
			{Owner: "n2", Key: endpoint.NodeKey},
		},
	}
	z := zone.Build(Compile(in).Zone)
	for name, want := range map[string][]string{
		"box": {"10.0.1.11", "10.0.1.12"}, "shop": {"10.0.1.11"}, "web": {"10.0.1.2"}, "other": {"10.0.1.13"},
		"aaaaaaaaaaaa": {"10.0.1.11"}, "cccccccccccc": {"10.0.1.13"}, "box.front": {"10.0.1.11", "10.0.1.12"}, "nobody": nil,
	} {
		addrs, _ := z.Addrs([]string{"net"}, name)
		var got []string
		for _, a := range addrs {
			got = append(got, a.String())
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if name, _ := z.Name([]string{"net"}, netip.MustParseAddr("10.0.1.11")); name != "box.front" {
		t.Errorf("the name of an address is %q", name)
	}
}
