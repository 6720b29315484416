package zone

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func addrs(text ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range text {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func example() Model {
	web := Service{
		Name: "web", Aliases: []string{"www", "front"}, VirtualIPs: addrs("10.0.1.2"),
		Ports: []Port{{Name: "http", Protocol: "tcp", Port: 80}},
		Tasks: []Task{
			{Name: "web.1", FullName: "web.1.aaaa", ContainerID: "0123456789abcdef", Addrs: addrs("10.0.1.3")},
			{Name: "web.2", FullName: "web.2.bbbb", Hostname: "host-2", Addrs: addrs("10.0.1.4")},
			{Name: "web.3", FullName: "web.3.cccc", Hostname: "host-2", Addrs: addrs("10.0.1.5"), Draining: true},
		},
	}
	db := Service{Name: "db", Aliases: []string{"front"}, Tasks: []Task{{Name: "db.1", FullName: "db.1.dddd", Addrs: addrs("10.0.1.9", "fd00::9")}}}
	hidden := Service{Name: "web", VirtualIPs: addrs("10.0.2.2")}
	return Model{Networks: []Network{
		{ID: "n1", Name: "App", Services: []Service{web, db, {Name: "empty"}}},
		{ID: "n2", Name: "back", Services: []Service{hidden}},
		// A name with dots, and one that looks like a service of another network.
		{ID: "n3", Name: "a.deep.net", Services: []Service{{Name: "web.of", VirtualIPs: addrs("10.0.3.1")}, {Name: "db.app", VirtualIPs: addrs("10.0.3.2")}}},
	}}
}

func TestAddrs(t *testing.T) {
	z := Build(example())
	for _, c := range []struct {
		networks []string
		name     string
		want     []netip.Addr
		known    bool
	}{
		{[]string{"n1"}, "web", addrs("10.0.1.2"), true},
		{[]string{"n1"}, "WEB.", addrs("10.0.1.2"), true},
		{[]string{"n1"}, "web.app", addrs("10.0.1.2"), true},
		{[]string{"n1"}, "www", addrs("10.0.1.2"), true},
		{[]string{"n1"}, "front", addrs("10.0.1.2", "10.0.1.9", "fd00::9"), true},
		{[]string{"n1"}, "tasks.web", addrs("10.0.1.3", "10.0.1.4"), true},
		{[]string{"n1"}, "tasks.web.app", addrs("10.0.1.3", "10.0.1.4"), true},
		{[]string{"n1"}, "db", addrs("10.0.1.9", "fd00::9"), true},
		{[]string{"n1"}, "web.3", addrs("10.0.1.5"), true},
		{[]string{"n1"}, "web.1.aaaa", addrs("10.0.1.3"), true},
		{[]string{"n1"}, "0123456789ab", addrs("10.0.1.3"), true},
		{[]string{"n1"}, "tasks.front", addrs("10.0.1.3", "10.0.1.4", "10.0.1.9", "fd00::9"), true},
		{[]string{"n1"}, "tasks.www.app", addrs("10.0.1.3", "10.0.1.4"), true},
		{[]string{"n1"}, "Host-2", addrs("10.0.1.4"), true},
		{[]string{"n1"}, "empty", nil, true},
		{[]string{"n1"}, "empty.app", nil, true},
		{[]string{"n1"}, "nope.app", nil, false},
		{[]string{"n1"}, "web.back", nil, false},
		{[]string{"n1", "n2"}, "web.back", addrs("10.0.2.2"), true},
		{[]string{"n1", "n2"}, "web", addrs("10.0.1.2"), true},
		{[]string{"n1", "n3"}, "web.of.a.deep.net", addrs("10.0.3.1"), true},
		{[]string{"n1", "n3"}, "db.app", addrs("10.0.3.2"), true},
		{[]string{"n1", "n3"}, ".", nil, false},
		{[]string{"n1"}, "nope", nil, false},
		{[]string{"n2"}, "web", addrs("10.0.2.2"), true},
		{[]string{"n2", "n1"}, "web", addrs("10.0.2.2"), true},
		{[]string{"n2", "n1"}, "web.app", addrs("10.0.1.2"), true},
		{[]string{"n2"}, "db", nil, false},
		{nil, "web", nil, false},
	} {
		t.Run(fmt.Sprint(c.networks, c.name), func(t *testing.T) {
			got, known := z.Addrs(c.networks, c.name)
			if known != c.known || !slices.Equal(got, c.want) {
				t.Fatalf("got %v %v, want %v %v", got, known, c.want, c.known)
			}
		})
	}
}

func TestReverse(t *testing.T) {
	z := Build(example())
	for addr, want := range map[string]string{
		"10.0.1.2": "web.App", "10.0.1.3": "web.1.aaaa.App", "fd00::9": "db.1.dddd.App", "10.0.1.77": "",
	} {
		if got, _ := z.Name([]string{"n1"}, netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
}

func TestServicePorts(t *testing.T) {
	m := example()
	db := &m.Networks[0].Services[1]
	db.Ports = []Port{{Protocol: "tcp", Port: 5432}, {Protocol: "udp", Port: 4711}, {Name: "admin", Protocol: "tcp", Port: 80}}
	z := Build(m)
	for name, want := range map[string]string{
		"_http._tcp.web": "web.1.aaaa.App:80 web.2.bbbb.App:80", "_80._tcp.web": "web.1.aaaa.App:80 web.2.bbbb.App:80",
		"_HTTP._tcp.web.app.": "web.1.aaaa.App:80 web.2.bbbb.App:80", "_http._tcp.www": "web.1.aaaa.App:80 web.2.bbbb.App:80",
		"_80._tcp.front":      "web.1.aaaa.App:80 web.2.bbbb.App:80 db.1.dddd.App:80",
		"_postgresql._tcp.db": "db.1.dddd.App:5432", "_5432._tcp.db": "db.1.dddd.App:5432", "_4711._udp.db.app": "db.1.dddd.App:4711",
		"_admin._tcp.db": "db.1.dddd.App:80", "_http._tcp.db": "", "_4711._tcp.db": "", "http._tcp.web": "", "_http._tcp.web.back": "",
	} {
		targets, known := z.Targets([]string{"n1"}, name)
		var got []string
		for _, target := range targets {
			got = append(got, fmt.Sprint(target.Name, ":", target.Port))
		}
		if strings.Join(got, " ") != want || known != (want != "") {
			t.Errorf("%s: got %v %v, want %s", name, got, known, want)
		}
	}
}

func TestServiceWinsOverAlias(t *testing.T) {
	z := Build(Model{Networks: []Network{{ID: "n", Name: "n", Services: []Service{
		{Name: "a", Aliases: []string{"a", "tasks.a"}, VirtualIPs: addrs("10.0.0.2")},
	}}}})
	if got, _ := z.Addrs([]string{"n"}, "a"); !slices.Equal(got, addrs("10.0.0.2")) {
		t.Fatalf("got %v", got)
	}
}
