package plan

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/dns/zone"
	"shoal/overlay/endpoint"
	"shoal/overlay/vxlan"
)

var me = Self{
	ID: "n1", Number: 1, VTEP: netip.MustParseAddr("192.0.2.1"), Port: 4789, MTU: 1500,
	NamespaceDir: "/run/ns", GatewayMTU: 1500,
}

func aNetwork(id string, vni uint32, subnet string) *api.Network {
	n := &api.Network{VNI: vni}
	n.ID, n.Spec.Name = id, "name-of-"+id
	n.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{{Subnet: netip.MustParsePrefix(subnet)}}}
	return n
}

// ingressNetwork is the routing mesh's.
func ingressNetwork() *api.Network {
	n := aNetwork("ingress", 4096, "10.0.0.0/24")
	n.Spec.Ingress = true
	return n
}

func aService(id, vip string, networks ...string) *api.Service {
	s := &api.Service{}
	s.ID, s.Spec.Name = id, id
	for _, n := range networks {
		s.Spec.TaskTemplate.Networks = append(s.Spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: n})
		if vip != "" {
			s.Endpoint.VirtualIPs = append(s.Endpoint.VirtualIPs,
				swarm.EndpointVirtualIP{NetworkID: n, Addr: netip.MustParsePrefix(vip)})
		}
	}
	return s
}

func publish(s *api.Service, target, published uint32, mode swarm.PortConfigPublishMode) *api.Service {
	s.Endpoint.Ports = append(s.Endpoint.Ports, swarm.PortConfig{
		Protocol: network.TCP, TargetPort: target, PublishedPort: published, PublishMode: mode,
	})
	return s
}

// rec is a task's record; places are network=address pairs.
func rec(owner, key, service string, slot int, places ...string) endpoint.Record {
	r := endpoint.Record{Owner: owner, Key: key, Seq: 1, Epoch: 1, Value: endpoint.Value{
		ServiceID: service, ServiceName: service, TaskName: fmt.Sprintf("%s.%d", service, slot), Slot: slot,
		ContainerID: ("0123456789abcdef" + key), Hostname: "host-" + key, VTEP: netip.MustParseAddr("192.0.2." + owner[1:]),
	}}
	for i := 0; i < len(places); i += 2 {
		addr := netip.MustParseAddr(places[i+1])
		r.Value.Attachments = append(r.Value.Attachments,
			endpoint.Attachment{NetworkID: places[i], MAC: MAC(addr), Addrs: []netip.Addr{addr}})
	}
	return r
}

func draining(r endpoint.Record) endpoint.Record {
	r.Value.State = endpoint.Draining
	return r
}

// localTask is a task of this node with a namespace.
func localTask(id string, places ...string) Local {
	t := &api.Task{ServiceName: "cli"}
	t.ID, t.NodeID, t.Slot = id, "n1", 1
	for i := 0; i < len(places); i += 2 {
		a := swarm.NetworkAttachment{Addresses: []netip.Prefix{netip.MustParsePrefix(places[i+1])}}
		a.Network.ID = places[i]
		t.NetworksAttachments = append(t.NetworksAttachments, a)
	}
	return Local{Task: t, Namespace: "/run/ns/task-" + id, DNSPort: 4000, Live: true}
}

func nodeIn(id string, state swarm.NodeState) *api.Node {
	n := &api.Node{}
	n.ID, n.Status.State = id, state
	return n
}

// world is one network with one service on it and a local client.
func world(records ...endpoint.Record) Input {
	return Input{
		Self: me, Networks: []*api.Network{aNetwork("net", 4097, "10.0.1.0/24")},
		Services: []*api.Service{aService("web", "10.0.1.2/24", "net")},
		Local:    []Local{localTask("cli", "net", "10.0.1.99/24")},
		Records:  records,
	}
}

func TestWhoGetsSomethingNew(t *testing.T) {
	one, two := rec("n1", "t1", "web", 1, "net", "10.0.1.3"), rec("n2", "t2", "web", 2, "net", "10.0.1.4")
	three := rec("n3", "t3", "web", 3, "net", "10.0.1.5")
	again := rec("n3", "t4", "web", 4, "net", "10.0.1.4")
	tests := []struct {
		name     string
		records  []endpoint.Record
		silent   string
		down     string
		balanced []string // with draining marked
		names    []string // what the service's name spreads over
		removed  string
	}{
		{"all are well", []endpoint.Record{one, two}, "", "", []string{"10.0.1.3", "10.0.1.4"}, []string{"10.0.1.3", "10.0.1.4"}, ""},
		{"one drains", []endpoint.Record{one, draining(two)}, "", "", []string{"10.0.1.3", "10.0.1.4 draining"}, []string{"10.0.1.3"}, ""},
		{"silence with others left", []endpoint.Record{two, three}, "n2", "", []string{"10.0.1.5"}, []string{"10.0.1.5"}, ""},
		{"silence takes no last one", []endpoint.Record{two}, "n2", "", []string{"10.0.1.4"}, []string{"10.0.1.4"}, ""},
		{"the rest drains", []endpoint.Record{two, draining(three)}, "n2", "",
			[]string{"10.0.1.4", "10.0.1.5 draining"}, []string{"10.0.1.4"}, ""},
		{"the managers gave it up", []endpoint.Record{two}, "n2", "n2", nil, nil, ""},
		{"down but heard", []endpoint.Record{two, three}, "", "n2", []string{"10.0.1.5"}, []string{"10.0.1.5"}, ""},
		{"the node hears itself", []endpoint.Record{one, two}, "n1", "", []string{"10.0.1.3", "10.0.1.4"}, []string{"10.0.1.3", "10.0.1.4"}, ""},
		{"the node knows that it lives", []endpoint.Record{one}, "", "n1", []string{"10.0.1.3"}, []string{"10.0.1.3"}, ""},
		{"nobody", nil, "", "", nil, nil, ""},
		{"a removed node goes on telling", []endpoint.Record{two, three}, "", "", []string{"10.0.1.5"}, []string{"10.0.1.5"}, "n2"},
		{"the address of a removed node's task is given again", []endpoint.Record{two, again}, "", "", []string{"10.0.1.4"}, []string{"10.0.1.4"}, "n2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := world(tt.records...)
			in.Silent = map[string]bool{tt.silent: true}
			for _, id := range []string{"n1", "n2", "n3"} {
				switch id {
				case tt.removed:
				case tt.down:
					in.Nodes = append(in.Nodes, nodeIn(id, swarm.NodeStateDown))
				default:
					in.Nodes = append(in.Nodes, nodeIn(id, swarm.NodeStateReady))
				}
			}
			out := Compile(in)
			var balanced []string
			for _, b := range out.Balancers[0].Services[0].Backends {
				balanced = append(balanced, b.String())
			}
			if !slices.Equal(balanced, tt.balanced) {
				t.Errorf("balanced over %q, want %q", balanced, tt.balanced)
			}
			addrs, known := zone.Build(out.Zone).Addrs([]string{"net"}, "tasks.web")
			if got := texts(addrs); !known || !slices.Equal(got, tt.names) {
				t.Errorf("named %q (known %v), want %q", got, known, tt.names)
			}
		})
	}
}

func texts(addrs []netip.Addr) (out []string) {
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func TestAddressThatChangedHands(t *testing.T) {
	before, after := rec("n2", "t1", "web", 1, "net", "10.0.1.3"), rec("n3", "t9", "web", 1, "net", "10.0.1.3")
	tests := []struct {
		name    string
		records []endpoint.Record
		silent  string
		vtep    string
	}{
		{"the old one drains", []endpoint.Record{draining(before), after}, "", "192.0.2.3"},
		{"the old one's node is silent", []endpoint.Record{before, after}, "n2", "192.0.2.3"},
		{"the new one's node is silent", []endpoint.Record{before, after}, "n3", "192.0.2.2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := world(tt.records...)
			in.Silent = map[string]bool{tt.silent: true}
			out := Compile(in)
			if peers := out.Overlay.Networks[0].Peers; len(peers) != 1 || peers[0].VTEP.String() != tt.vtep {
				t.Errorf("peers are %+v, want one at %s", peers, tt.vtep)
			}
			if _, err := out.Balancers[0].Canonical(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStartingTask: whom a task asks before it takes part can answer it, whoever
// knows its own name finds it, and nobody else is sent to it. A state of a later
// version counts like that too.
func TestStartingTask(t *testing.T) {
	r, next := rec("n2", "t1", "web", 1, "net", "10.0.1.3"), rec("n2", "t0", "web", 2, "net", "10.0.1.5")
	r.Value.State, next.Value.State = endpoint.Starting, 7
	out := Compile(world(r, rec("n2", "t2", "web", 2, "net", "10.0.1.4"), next))
	if peers := out.Overlay.Networks[0].Peers; len(peers) != 3 {
		t.Errorf("peers are %+v, want all tasks", peers)
	}
	for _, b := range out.Balancers {
		for _, s := range b.Services {
			if len(s.Backends) != 1 || s.Backends[0].Task != "web.2" {
				t.Errorf("%s has %+v", s.Name, s.Backends)
			}
		}
	}
	names := zone.Build(out.Zone)
	for name, want := range map[string]string{"tasks.web": "[10.0.1.4]", "web.1": "[10.0.1.3]", "web.2": "[10.0.1.4]", "web.2.t0": "[10.0.1.5]", "host-t1": "[10.0.1.3]"} {
		if got, _ := names.Addrs([]string{"net"}, name); fmt.Sprint(got) != want {
			t.Errorf("%s is %v, want %s", name, got, want)
		}
	}
}

func TestMesh(t *testing.T) {
	at := []string{"ingress", "10.0.0.5", "net", "10.0.1.3"}
	in := world(rec("n2", "t1", "web", 1, at...))
	in.Local, in.Networks = nil, append(in.Networks, ingressNetwork())

	if out := Compile(in); len(out.Overlay.Networks) != 1 || len(out.Translations[0].Forwards) != 0 {
		t.Fatalf("the mesh is not ready for the first port: %+v", out)
	}
	publish(in.Services[0], 80, 8080, swarm.PortConfigPublishModeHost)
	if out := Compile(in); len(out.Translations[0].Forwards) != 0 {
		t.Fatalf("a mesh for a port of the host: %+v", out)
	}
	publish(in.Services[0], 80, 8000, swarm.PortConfigPublishModeIngress)
	out := Compile(in)
	want := []lb.Forward{{Protocol: lb.TCP, Port: 8000, To: netip.MustParseAddrPort("169.254.128.2:8000"), Name: "web"}}
	if got := out.Translations[0].Forwards; !reflect.DeepEqual(got, want) {
		t.Errorf("the host forwards %+v, want %+v", got, want)
	}
	mesh := lb.Desired{Namespace: "/run/ns/net-ingress", MasqueradeFrom: prefixes("10.0.0.0/24", "169.254.64.0/18", "169.254.128.0/30", "172.18.0.0/16"), Services: []lb.Service{{
		Front: lb.Front{Addr: netip.MustParseAddr("169.254.128.2"), Port: 8000, Protocol: lb.TCP},
		Name:  "web", Algorithm: lb.RoundRobin,
		Backends: []lb.Backend{{Addr: netip.MustParseAddr("10.0.0.5"), Port: 80, Weight: 1, Task: "web.1"}},
	}}}
	if !reflect.DeepEqual(out.Balancers, []lb.Desired{mesh}) {
		t.Errorf("the mesh balances %+v, want %+v", out.Balancers, mesh)
	}
	n := out.Overlay.Networks[0]
	if n.Balancer == nil || n.Balancer.Addrs[0].String() != "169.254.64.1/18" || len(n.Peers) != 1 {
		t.Errorf("the ingress namespace is %+v", n)
	}
	if len(out.Zone.Networks) != 0 {
		t.Errorf("the mesh has names: %+v", out.Zone)
	}
}

func TestSandbox(t *testing.T) {
	in := world()
	in.Networks = append(in.Networks, ingressNetwork(), aNetwork("unready", 0, "10.0.7.0/24"))
	l := localTask("cli", "ingress", "10.0.0.9/24", "unready", "10.0.7.3/24", "net", "10.0.1.9/24")
	l.Gateway = netip.MustParsePrefix("172.18.0.5/16")
	in.Local = []Local{l}
	want := vxlan.Sandbox{ID: "cli", Namespace: l.Namespace,
		Interfaces: []vxlan.Interface{
			{Name: "eth0", NetworkID: "ingress", MAC: "02:42:0a:00:00:09", Addrs: prefixes("10.0.0.9/24"), MTU: 1450,
				Neighbors: []vxlan.Neighbor{{Addr: netip.MustParseAddr("169.254.64.0"), MAC: "02:42:a9:fe:40:00"}}},
			{Name: "eth1", NetworkID: "net", MAC: "02:42:0a:00:01:09", Addrs: prefixes("10.0.1.9/24"), MTU: 1450},
			{Name: "eth2", MAC: "02:42:ac:12:00:05", Addrs: prefixes("172.18.0.5/16", "fd53:686f:616c:1::ac12:5/64"), MTU: 1500},
		},
		Routes: []vxlan.Route{
			{Dst: netip.MustParsePrefix("169.254.64.0/18"), Interface: "eth0"},
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("169.254.64.0"), Interface: "eth0", Table: 8300},
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.18.0.1"), Interface: "eth2"},
			{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd53:686f:616c:1::1"), Interface: "eth2"},
		},
		Rules: []vxlan.Rule{{Mark: 0x50ea0000, Mask: 0xffff0000, Table: 8300}}}
	out := Compile(in)
	if !reflect.DeepEqual(out.Overlay.Sandboxes, []vxlan.Sandbox{want}) {
		t.Errorf("got  %+v\nwant %+v", out.Overlay.Sandboxes, want)
	}
	if g := out.Overlay.Gateway; g == nil || !slices.Equal(g.Addrs, []netip.Prefix{GatewayPrefix, GatewayPrefix6}) || g.MTU != 1500 {
		t.Errorf("gateway is %+v", g)
	}
	if m := out.Translations[0].Masquerade; len(m) != 2 || m[0].Bridge != GatewayBridge {
		t.Errorf("egress is %+v", m)
	}
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, p := range texts {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestPortsOfTheHost(t *testing.T) {
	in := world()
	l := localTask("cli", "net", "10.0.1.9/24")
	l.Gateway = netip.MustParsePrefix("172.18.0.5/16")
	l.Task.Ports = []swarm.PortConfig{
		{Protocol: network.UDP, TargetPort: 53, PublishedPort: 5353, PublishMode: swarm.PortConfigPublishModeHost},
		{Protocol: network.TCP, TargetPort: 80, PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeIngress},
	}
	for _, live := range []bool{false, true} {
		l.Live = live
		in.Local = []Local{l}
		var want []lb.Forward
		if live {
			want = []lb.Forward{{Protocol: lb.UDP, Port: 5353, To: netip.MustParseAddrPort("172.18.0.5:53"), Name: "cli.1"},
				{Protocol: lb.UDP, Port: 5353, To: netip.MustParseAddrPort("[fd53:686f:616c:1::ac12:5]:53"), Name: "cli.1"}}
		}
		if got := Compile(in).Translations[0].Forwards; !reflect.DeepEqual(got, want) {
			t.Errorf("live %v: forwards %+v, want %+v", live, got, want)
		}
	}
}

func TestNameServerOfATask(t *testing.T) {
	in := world()
	out := Compile(in).Translations[1]
	if len(out.Redirects) != 2 || out.Redirects[0].To.Port() != 4000 || out.Redirects[0].From.String() != "127.0.0.11:53" {
		t.Errorf("redirects are %+v", out.Redirects)
	}
	in.Local[0].DNSPort = 0
	if out := Compile(in).Translations[1]; len(out.Redirects) != 0 {
		t.Errorf("a task without a name server is redirected: %+v", out)
	}
}

func TestNamesOfAService(t *testing.T) {
	in := world(rec("n2", "t2", "web", 2, "net", "10.0.1.4"))
	in.Services[0].Spec.TaskTemplate.Networks[0] = swarm.NetworkAttachmentConfig{Target: "name-of-net", Aliases: []string{"www"}}
	publish(in.Services[0], 80, 0, swarm.PortConfigPublishModeIngress)
	z := zone.Build(Compile(in).Zone)
	for name, want := range map[string]string{
		"web": "10.0.1.2", "www": "10.0.1.2", "tasks.web": "10.0.1.4", "web.2": "10.0.1.4", "web.2.t2": "10.0.1.4",
	} {
		if got, _ := z.Addrs([]string{"net"}, name); len(got) != 1 || got[0].String() != want {
			t.Errorf("%s is %v, want %s", name, got, want)
		}
	}
	if targets, known := z.Targets([]string{"net"}, "_80._tcp.web"); !known || len(targets) != 1 || targets[0].Port != 80 {
		t.Errorf("the port's name gives %+v", targets)
	}
	if len(in.Services[0].Endpoint.VirtualIPs) != 1 {
		t.Error("the input was changed")
	}
}

func TestAlgorithmOfAService(t *testing.T) {
	in := world()
	for label, want := range map[string]lb.Algorithm{"": lb.RoundRobin, "nonsense": lb.RoundRobin, "mh": lb.Maglev} {
		in.Services[0].Spec.Labels = map[string]string{api.LabelAlgorithm: label}
		if got := Compile(in).Balancers[0].Services[0].Algorithm; got != want {
			t.Errorf("label %q gives %q, want %q", label, got, want)
		}
	}
}

func TestBalancerAddr(t *testing.T) {
	for number, want := range map[uint32]string{1: "169.254.64.1/18", 256: "169.254.65.0/18", 16382: "169.254.127.254/18"} {
		if got := BalancerAddr(number).String(); got != want {
			t.Errorf("node %d is at %s, want %s", number, got, want)
		}
	}
}

// TestClientsOfTheMesh: who is hidden, and how a task answers those who are not.
func TestClientsOfTheMesh(t *testing.T) {
	inside := prefixes("10.0.0.0/24", "169.254.64.0/18")
	hidden := prefixes("10.0.0.0/24", "169.254.64.0/18", "169.254.128.0/30", "172.18.0.0/16")
	everyone := prefixes("0.0.0.0/0", "::/0")
	gateway := netip.MustParsePrefix("172.18.0.5/16")
	node := func(hides bool) endpoint.Record {
		r := rec("n2", endpoint.NodeKey, "", 0, "ingress", "169.254.64.2")
		r.Value.HidesClients = hides
		return r
	}
	path := func(gateway netip.Prefix) *lb.ReturnPath {
		var datagrams []netip.Addr
		if gateway.IsValid() {
			datagrams = []netip.Addr{gateway.Addr(), Gateway6(gateway).Addr()}
		}
		return &lb.ReturnPath{Interface: "eth1", Neighbors: [4]byte{0x02, 0x42, 0xa9, 0xfe}, Direct: inside, Mark: 0x50ea0000, Datagrams: datagrams}
	}
	tests := []struct {
		name     string
		change   func(*Input)
		from     []netip.Prefix
		service  bool
		answers  *lb.ReturnPath
		defaults int // default routes of the main table
	}{
		{"plain", func(*Input) {}, hidden, false, path(gateway), 1},
		{"the service asks for it", func(in *Input) { in.Services[0].Spec.Labels = map[string]string{api.LabelSource: "nat"} }, hidden, true, path(gateway), 1},
		{"a task without a way out", func(in *Input) { in.Local[0].Gateway = netip.Prefix{} }, hidden, false, path(netip.Prefix{}), 1},
		{"this kernel cannot", func(in *Input) { in.Self.HidesClients = true }, everyone, false, nil, 1},
		{"another's kernel cannot", func(in *Input) { in.Records = append(in.Records, node(true)) }, everyone, false, path(gateway), 1},
		{"another's can", func(in *Input) { in.Records = append(in.Records, node(false)) }, hidden, false, path(gateway), 1},
		{"another's cannot, but it is down", func(in *Input) {
			in.Records, in.Nodes = append(in.Records, node(true)), []*api.Node{nodeIn("n2", swarm.NodeStateDown)}
		}, hidden, false, path(gateway), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := world(rec("n1", "cli", "web", 1, "ingress", "10.0.0.9", "net", "10.0.1.9"))
			in.Networks = append(in.Networks, ingressNetwork())
			l := localTask("cli", "net", "10.0.1.9/24", "ingress", "10.0.0.9/24")
			l.Gateway = gateway
			in.Local = []Local{l}
			publish(in.Services[0], 80, 8000, swarm.PortConfigPublishModeIngress)
			tt.change(&in)
			out := Compile(in)
			at := slices.IndexFunc(out.Balancers, func(d lb.Desired) bool { return d.Namespace == "/run/ns/net-ingress" })
			if mesh := out.Balancers[at]; !slices.Equal(mesh.MasqueradeFrom, tt.from) || mesh.Services[0].Masquerade != tt.service {
				t.Errorf("hidden: %v, the service %v", mesh.MasqueradeFrom, mesh.Services[0].Masquerade)
			}
			if got := out.Translations[1].Return; !reflect.DeepEqual(got, tt.answers) {
				t.Errorf("answers by %+v, want %+v", got, tt.answers)
			}
			s, main := out.Overlay.Sandboxes[0], 0
			for _, r := range s.Routes {
				if r.Dst == everywhere && r.Table == 0 {
					main++
				}
			}
			if main != tt.defaults || len(s.Rules) > 0 != (tt.answers != nil) || len(s.Interfaces[1].Neighbors) != len(s.Rules) {
				t.Errorf("sandbox %+v", s)
			}
		})
	}
}
