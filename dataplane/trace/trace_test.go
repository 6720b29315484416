package trace

import (
	"net/netip"
	"strings"
	"testing"

	"shoal/dataplane/lb"
)

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix     { return netip.MustParsePrefix(s) }
func port(s string) netip.AddrPort     { return netip.MustParseAddrPort(s) }
func prefixes(s string) []netip.Prefix { return []netip.Prefix{prefix(s)} }

// task is a task's namespace: eth0 in network app, eth1 on the gateway bridge.
func task(node, name, app, gw string) Namespace {
	return Namespace{
		Node: node, Path: "/ns/" + name, Name: name,
		Interfaces: []Interface{
			{Name: "eth0", Addrs: prefixes(app + "/24"), Network: "app"},
			{Name: "eth1", Addrs: prefixes(gw + "/16")},
		},
		Routes: []Route{{Dest: prefix("0.0.0.0/0"), Link: "eth1", Via: addr("172.19.0.1")}},
		Balance: lb.Desired{Services: []lb.Service{{
			Front: lb.Front{Addr: addr("10.0.1.2")}, Name: "web",
			Backends: []lb.Backend{{Addr: addr("10.0.1.11"), Task: "web.1"}, {Addr: addr("10.0.1.12"), Task: "web.2"},
				{Addr: addr("10.0.1.13"), Task: "web.3", Draining: true}},
		}, {Front: lb.Front{Addr: addr("10.0.1.3")}, Name: "gone"}}},
		Translation: lb.Translation{Redirects: []lb.Redirect{{Protocol: lb.UDP, From: port("127.0.0.11:53"), To: port("127.0.0.11:40053")}}},
		Listens:     []Listen{{Protocol: lb.TCP, Port: 80}, {Protocol: lb.UDP, Port: 40053}, {Protocol: lb.TCP, Port: 82, Addr: addr("127.0.0.1")}},
	}
}

// host is a node: 10.77.0.N outside, the gateway bridge, the veth to ingress.
func host(node, own string) Namespace {
	return Namespace{
		Node: node,
		Interfaces: []Interface{
			{Name: "eth0", Addrs: prefixes(own + "/24")},
			{Name: "shoal_gw", Addrs: prefixes("172.19.0.1/16")},
			{Name: "ing0", Addrs: prefixes("169.254.128.1/30"), Peer: "/ns/ingress", HasPeer: true},
		},
		Routes: []Route{{Dest: prefix("0.0.0.0/0"), Link: "eth0", Via: addr("10.77.0.254")}},
		Translation: lb.Translation{
			Forwards:   []lb.Forward{{Protocol: lb.TCP, Port: 8080, To: port("169.254.128.2:8080"), Name: "web"}},
			Masquerade: []lb.Egress{{Source: prefix("172.19.0.0/16"), Bridge: "shoal_gw"}},
			Inner:      []lb.Inner{{Prefix: prefix("169.254.128.0/30"), Link: "ing0"}},
			Passing:    []string{"ing0", "shoal_gw"},
			Members:    &lb.Members{Port: 4789, Addrs: []netip.Addr{addr("10.77.0.1"), addr("10.77.0.2")}},
		},
		Listens: []Listen{},
	}
}

func ingress(node, own string, backends ...lb.Backend) Namespace {
	return Namespace{
		Node: node, Path: "/ns/ingress", Name: "ingress",
		Interfaces: []Interface{
			{Name: "br0", Addrs: prefixes(own + "/18"), Network: "ingress"},
			{Name: "up0", Addrs: prefixes("169.254.128.2/30"), Peer: "", HasPeer: true},
		},
		Routes: []Route{{Dest: prefix("10.0.0.0/24"), Link: "br0"}, {Dest: prefix("0.0.0.0/0"), Link: "up0", Via: addr("169.254.128.1")}},
		Balance: lb.Desired{MasqueradeFrom: []netip.Prefix{prefix("172.19.0.0/16"), prefix("169.254.128.0/30")}, Services: []lb.Service{{
			Front: lb.Front{Addr: addr("169.254.128.2"), Port: 8080, Protocol: lb.TCP}, Name: "web", Backends: backends}}},
	}
}

// world: nodes n1 (web.1) and n2 (web.2), networks app and ingress on both.
func world() World {
	web1, web2 := task("n1", "web.1", "10.0.1.11", "172.19.0.11"), task("n2", "web.2", "10.0.1.12", "172.19.0.12")
	web1.Interfaces = append(web1.Interfaces, Interface{Name: "eth2", Addrs: prefixes("10.0.0.11/24"), Network: "ingress"})
	web2.Interfaces = append(web2.Interfaces, Interface{Name: "eth2", Addrs: prefixes("10.0.0.12/24"), Network: "ingress"})
	backends := []lb.Backend{{Addr: addr("10.0.0.11"), Port: 80, Task: "web.1"}, {Addr: addr("10.0.0.12"), Port: 80, Task: "web.2"}}
	peer := func(a, vtep, node string) []Peer {
		return []Peer{{Addr: addr(a), MAC: "02:42:0a:00:01:0c", VTEP: addr(vtep), VTEPNode: node}}
	}
	return World{
		Namespaces: []Namespace{host("n1", "10.77.0.1"), host("n2", "10.77.0.2"), web1, web2,
			ingress("n1", "169.254.64.1", backends...), ingress("n2", "169.254.64.2", backends...)},
		Networks: []Network{
			{ID: "app", Name: "app", Node: "n1", VNI: 4097, Peers: peer("10.0.1.12", "10.77.0.2", "n2")},
			{ID: "app", Name: "app", Node: "n2", VNI: 4097, Peers: peer("10.0.1.11", "10.77.0.1", "n1")},
			{ID: "ingress", Name: "ingress", Node: "n1", VNI: 4096, Peers: peer("10.0.0.12", "10.77.0.2", "n2")},
			{ID: "ingress", Name: "ingress", Node: "n2", VNI: 4096, Peers: peer("10.0.0.11", "10.77.0.1", "n1")},
		},
	}
}

func from(node, name, to string, p lb.Protocol) Packet {
	pkt := Packet{Node: node, Dst: port(to), Protocol: p}
	if name != "" {
		pkt.Namespace = "/ns/" + name
	}
	return pkt
}

// TestTrace: each row is a packet and the ways it may take, as "verdict at
// destination from source", plus words that must show up in hops or reasons.
func TestTrace(t *testing.T) {
	outside := Packet{Node: "n1", Arrives: true, Src: addr("10.77.0.9"), Dst: port("10.77.0.1:8080"), Protocol: lb.TCP}
	anyone := outside
	anyone.Src = netip.Addr{}
	ping := func(name, to string) Packet { return from("n1", name, to+":0", Ping) }
	closed := outside
	closed.Dst = port("10.77.0.1:9999")
	for _, row := range []struct {
		name  string
		p     Packet
		want  []string
		words []string
	}{
		{"east-west by virtual address", from("n1", "web.1", "10.0.1.2:80", lb.TCP),
			[]string{"delivered n1/web.1 10.0.1.11:80 from 10.0.1.11", "delivered n2/web.2 10.0.1.12:80 from 10.0.1.11"},
			[]string{"front 10.0.1.2 (web)", "rr picks 10.0.1.11 (web.1), 1 of 2", "VXLAN 4097 to 10.77.0.2 (n2)", "lladdr 02:42:0a:00:01:0c"}},
		{"a port that the server does not listen on", from("n2", "web.2", "10.0.1.11:81", lb.TCP),
			[]string{"refused n1/web.1 10.0.1.11:81 from 10.0.1.12"}, []string{"nothing listens on 81/tcp"}},
		{"a service without backends", from("n1", "web.1", "10.0.1.3:80", lb.TCP),
			[]string{"refused n1/web.1 10.0.1.3:80 from 10.0.1.11"}, []string{"service 10.0.1.3 has no backend"}},
		{"published port from outside", outside,
			[]string{"delivered n1/web.1 10.0.0.11:80 from 10.77.0.9", "delivered n2/web.2 10.0.0.12:80 from 10.77.0.9"},
			[]string{"forward 8080/tcp (web)", "front 169.254.128.2:8080/tcp (web)", "source 10.77.0.9 is kept: the reply returns by n1", "VXLAN 4096"}},
		{"published port at the loopback address", from("n2", "", "127.0.0.1:8080", lb.TCP),
			[]string{"delivered n1/web.1 10.0.0.11:80 from 169.254.64.2", "delivered n2/web.2 10.0.0.12:80 from 169.254.64.2"},
			[]string{"masquerade: loopback source", "masquerade: balanced here"}},
		{"another node's published port", from("n1", "", "10.77.0.2:8080", lb.TCP),
			[]string{"delivered n1/web.1 10.0.0.11:80 from 10.77.0.1", "delivered n2/web.2 10.0.0.12:80 from 10.77.0.1"},
			[]string{"to node n2", "source 10.77.0.1 is kept: the reply returns by n2"}},
		{"unpublished port", closed, []string{"refused n1 10.77.0.1:9999 from 10.77.0.9"}, []string{"nothing listens on 9999/tcp in n1, and no service publishes that port"}},
		{"outside by the gateway", from("n1", "web.1", "192.0.2.7:443", lb.TCP),
			[]string{"left n1 192.0.2.7:443 from 10.77.0.1"}, []string{"source 172.19.0.11 becomes 10.77.0.1", "next is 10.77.0.254"}},
		{"an overlay address from where the overlay is not", from("n1", "", "10.0.1.11:80", lb.TCP),
			[]string{"left n1 10.0.1.11:80 from 10.77.0.1"}, []string{"next is 10.77.0.254"}},
		{"the resolver", from("n1", "web.1", "127.0.0.11:53", lb.UDP),
			[]string{"delivered n1/web.1 127.0.0.11:40053 from 127.0.0.11"}, []string{"redirect 127.0.0.11:53/udp"}},
		{"an address of the network that nobody has", from("n1", "web.1", "10.0.1.99:80", lb.TCP),
			[]string{"no route n1/web.1 10.0.1.99:80 from 10.0.1.11"}, []string{"node n1 knows no endpoint 10.0.1.99 in network app"}},
		{"a process that listens at the loopback address only", from("n2", "web.2", "10.0.1.11:82", lb.TCP),
			[]string{"refused n1/web.1 10.0.1.11:82 from 10.0.1.12"}, []string{"listens at 127.0.0.1 only, not at 10.0.1.11"}},
		{"published port from anywhere", anyone,
			[]string{"delivered n1/web.1 10.0.0.11:80 from invalid IP", "delivered n2/web.2 10.0.0.12:80 from invalid IP"},
			[]string{"the client's source is kept: the reply returns by n1", "inet shoal_nat forward4", "inet shoal_lb port4", "fdb vx4096"}},
		{"ping a virtual address", ping("web.1", "10.0.1.2"),
			[]string{"delivered n1/web.1 10.0.1.11:0 from 10.0.1.11", "delivered n2/web.2 10.0.1.12:0 from 10.0.1.11"}, []string{"answers pings"}},
		{"ping a node", ping("", "10.77.0.2"), []string{"delivered n2 10.77.0.2:0 from 10.77.0.1"}, []string{"answers pings"}},
		{"no such namespace", from("n9", "x", "10.0.1.2:80", lb.TCP), []string{"unknown  10.0.1.2:80 from invalid IP"}, nil},
	} {
		t.Run(row.name, func(t *testing.T) { check(t, world(), row.p, row.want, row.words) })
	}
}

// TestGuard: what the host drops before it looks at any port.
func TestGuard(t *testing.T) {
	outside := Packet{Node: "n1", Arrives: true, Src: addr("10.77.0.9"), Protocol: lb.TCP}
	to := func(dst string, p lb.Protocol) Packet {
		pkt := outside
		pkt.Dst, pkt.Protocol = port(dst), p
		return pkt
	}
	for _, row := range []struct {
		name  string
		p     Packet
		want  string
		words []string
	}{
		{"the mesh's link, from outside", to("169.254.128.2:8080", lb.TCP), "dropped n1 169.254.128.2:8080 from 10.77.0.9",
			[]string{"169.254.128.2 is an inner address of n1: only what comes by ing0 may be for it"}},
		{"the mesh's link, from a task", from("n1", "web.1", "169.254.128.2:8080", lb.TCP), "dropped n1 169.254.128.2:8080 from 172.19.0.11",
			[]string{"inner 169.254.128.0/30 behind ing0"}},
		{"a task's gateway leg, from outside", to("172.19.0.11:80", lb.TCP), "dropped n1 172.19.0.11:80 from 10.77.0.9", []string{"behind shoal_gw"}},
		{"a gateway leg, from a task beside it", from("n1", "web.1", "172.19.0.1:80", lb.TCP), "refused n1 172.19.0.1:80 from 172.19.0.11", nil},
		{"VXLAN from a stranger", to("10.77.0.1:4789", lb.UDP), "dropped n1 10.77.0.1:4789 from 10.77.0.9", []string{"only nodes of the cluster may send to it"}},
		{"VXLAN from a task", from("n1", "web.1", "10.77.0.1:4789", lb.UDP), "dropped n1 10.77.0.1:4789 from 172.19.0.11", []string{"no task may send to it"}},
		{"the port's number over TCP", to("10.77.0.1:4789", lb.TCP), "refused n1 10.77.0.1:4789 from 10.77.0.9", nil},
	} {
		t.Run(row.name, func(t *testing.T) { check(t, world(), row.p, []string{row.want}, row.words) })
	}
}

// TestNotOnTheNetwork: a task without a leg in the network and without a default
// route has no way there.
func TestNotOnTheNetwork(t *testing.T) {
	w := world()
	w.Namespaces = append(w.Namespaces, Namespace{Node: "n1", Path: "/ns/other", Name: "other",
		Interfaces: []Interface{{Name: "eth0", Addrs: prefixes("10.0.5.3/24"), Network: "other"}}})
	check(t, w, from("n1", "other", "10.0.1.2:80", lb.TCP), []string{"no route n1/other 10.0.1.2:80 from invalid IP"}, []string{"no network with it"})
}

func check(t *testing.T, w World, p Packet, want, words []string) {
	t.Helper()
	var got, text []string
	for _, path := range Trace(w, p) {
		got = append(got, string(path.Verdict)+" "+path.At+" "+path.Dst.String()+" from "+path.Src.String())
		text = append(text, path.Reason)
		for _, h := range path.Hops {
			text = append(text, h.Where+": "+h.Table+": "+h.Rule+": "+h.Result)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("ways:\n%s\nwant:\n%s\nhops:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), strings.Join(text, "\n"))
	}
	for _, word := range words {
		if !strings.Contains(strings.Join(text, "\n"), word) {
			t.Errorf("%q is not told:\n%s", word, strings.Join(text, "\n"))
		}
	}
}

// TestCircle: two hosts that forward a port to each other end in a verdict.
func TestCircle(t *testing.T) {
	w := world()
	w.Namespaces[0].Translation.Forwards = []lb.Forward{{Protocol: lb.TCP, Port: 80, To: port("10.77.0.2:80")}}
	w.Namespaces[1].Translation.Forwards = []lb.Forward{{Protocol: lb.TCP, Port: 80, To: port("10.77.0.1:80")}}
	paths := Trace(w, from("n1", "", "10.77.0.1:80", lb.TCP))
	if len(paths) != 1 || paths[0].Verdict != Dropped {
		t.Errorf("got %+v", paths)
	}
}

// TestHidden: a service that hides its clients shows them to no task.
func TestHidden(t *testing.T) {
	w := world()
	for i := range w.Namespaces {
		if services := w.Namespaces[i].Balance.Services; w.Namespaces[i].Name == "ingress" {
			services[0].Masquerade = true
		}
	}
	check(t, w, Packet{Node: "n1", Arrives: true, Src: addr("10.77.0.9"), Dst: port("10.77.0.1:8080"), Protocol: lb.TCP},
		[]string{"delivered n1/web.1 10.0.0.11:80 from 169.254.64.1", "delivered n2/web.2 10.0.0.12:80 from 169.254.64.1"},
		[]string{"masquerade: balanced here: source 10.77.0.9 becomes 169.254.64.1"})
}

// TestPingOfIPVS: IPVS takes no pings, so the front answers itself.
func TestPingOfIPVS(t *testing.T) {
	w := world()
	for i := range w.Namespaces {
		w.Namespaces[i].Balancer = "ipvs"
	}
	check(t, w, from("n1", "web.1", "10.0.1.2:0", Ping), []string{"delivered n1/web.1 127.0.0.1:0 from 10.0.1.11"}, []string{"inet shoal_ipvs ping"})
}
