package netview

import (
	"io/fs"
	"net/netip"
	"net/url"
	"testing"

	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

func flow(src, dst, server string, in, out uint64) netfilter.Tracked {
	return netfilter.Tracked{
		Flow: netfilter.Flow{Protocol: unix.IPPROTO_TCP, Source: netip.MustParseAddrPort(src), Dest: netip.MustParseAddrPort(dst), Server: netip.MustParseAddrPort(server)},
		Sent: netfilter.Traffic{Packets: in / 100, Bytes: in}, Received: netfilter.Traffic{Packets: out / 100, Bytes: out},
	}
}

// aSpace is a task 10.0.1.9 that calls web at 10.0.1.2 and db's task itself, and
// that the node's port leads to.
func aSpace() *space {
	own := netip.MustParseAddr("10.0.1.9")
	return &space{
		own: map[netip.Addr]bool{own: true},
		fronts: map[lb.Front]front{{Addr: netip.MustParseAddr("10.0.1.2")}: {"web", viaVirtualIP,
			map[netip.Addr]string{netip.MustParseAddr("10.0.1.3"): "web.1"}}},
		hosted:   map[lb.Front]usageKey{{Addr: netip.MustParseAddr("172.18.0.4"), Port: 80, Protocol: lb.TCP}: {"edge", viaHostPort, "edge.1", "172.18.0.4"}},
		backends: map[netip.Addr]usageKey{netip.MustParseAddr("10.0.1.7"): {"db", viaDirect, "db.1", "10.0.1.7"}, own: {"edge", viaDirect, "edge.1", "10.0.1.9"}},
	}
}

func TestWhatAFlowIsFor(t *testing.T) {
	s := aSpace()
	for _, row := range []struct {
		f    netfilter.Tracked
		want usageKey
	}{
		{flow("10.0.1.9:4000", "10.0.1.2:80", "10.0.1.3:80", 1, 1), usageKey{"web", viaVirtualIP, "web.1", "10.0.1.3"}},
		{flow("10.0.1.9:4000", "10.0.1.2:80", "10.0.1.4:80", 1, 1), usageKey{"web", viaVirtualIP, "", "10.0.1.4"}}, // gone since
		{flow("10.0.1.9:4000", "10.0.1.7:5432", "10.0.1.7:5432", 1, 1), usageKey{"db", viaDirect, "db.1", "10.0.1.7"}},
		{flow("192.0.2.7:4000", "172.18.0.4:80", "172.18.0.4:80", 1, 1), usageKey{"edge", viaHostPort, "edge.1", "172.18.0.4"}},
		{flow("10.0.1.7:4000", "10.0.1.9:80", "10.0.1.9:80", 1, 1), usageKey{}}, // counted at its client
		{flow("10.0.1.9:4000", "192.0.2.1:443", "192.0.2.1:443", 1, 1), usageKey{}},
	} {
		if got, ok := s.of(row.f); got != row.want || ok != (row.want != usageKey{}) {
			t.Errorf("%v is for %+v %v, want %+v", row.f.Flow, got, ok, row.want)
		}
	}
}

// TestMeterCounts: totals rise by what flows did between looks, also when a flow
// ends and another takes its ports; nothing counts twice.
func TestMeterCounts(t *testing.T) {
	spaces := map[string]*space{"ns": aSpace()}
	m := &Meter{totals: map[usageKey]Traffic{}}
	look := func(flows ...netfilter.Tracked) Usage {
		t.Helper()
		top := m.account(map[string][]netfilter.Tracked{"ns": flows}, spaces)
		if len(top.Usage) == 0 {
			return Usage{}
		}
		return top.Usage[0]
	}
	check := func(what string, got Usage, open int, want Traffic) {
		t.Helper()
		if got.Open != open || got.Total != want {
			t.Errorf("%s: %d open, %+v; want %d, %+v", what, got.Open, got.Total, open, want)
		}
	}
	a := func(in, out uint64) netfilter.Tracked {
		return flow("10.0.1.9:4000", "10.0.1.2:80", "10.0.1.3:80", in, out)
	}
	check("the first look", look(a(1000, 5000)), 1, Traffic{})
	check("more bytes", look(a(1500, 9000)), 1, Traffic{0, 500, 4000, 5, 40})
	ended := flow("10.0.1.9:4001", "10.0.1.2:80", "10.0.1.3:80", 200, 300)
	ended.Ended = true
	check("one that came and went", look(a(1500, 9000), ended), 1, Traffic{1, 700, 4300, 7, 43})
	check("the same ports again", look(a(100, 100)), 1, Traffic{2, 800, 4400, 8, 44})
	check("all gone", look(), 0, Traffic{2, 800, 4400, 8, 44})
	m.drop()
	check("after a pause", look(a(7000, 7000)), 1, Traffic{2, 800, 4400, 8, 44})
	spaces["ns"] = &space{}
	if got := look(); got != (Usage{}) {
		t.Errorf("a service that is gone shows %+v", got)
	}
}

// TestMeterAdmitsEndedTasks: a namespace that vanishes meanwhile is no error.
func TestMeterAdmitsEndedTasks(t *testing.T) {
	m := &Meter{Flows: func(ns string) ([]netfilter.Tracked, error) {
		if ns == "gone" {
			return nil, fs.ErrNotExist
		}
		return []netfilter.Tracked{{}}, nil
	}}
	got, err := m.read([]string{"gone", "there"})
	if err != nil || len(got) != 1 || len(got["there"]) != 1 {
		t.Errorf("%v %v", got, err)
	}
}

func TestSum(t *testing.T) {
	one := Usage{Service: "web", Via: viaMesh, Task: "web.1", Backend: "a", Open: 1, Total: Traffic{Connections: 2}}
	two := Usage{Service: "web", Via: viaMesh, Task: "web.2", Backend: "b", Open: 3, Total: Traffic{Connections: 4}}
	if got := sum([]Usage{one, two, one}, false); len(got) != 1 || got[0].Open != 5 || got[0].Total.Connections != 8 || got[0].Task != "" {
		t.Errorf("by service: %+v", got)
	}
	if got := sum([]Usage{two, one, one}, true); len(got) != 2 || got[0].Open != 2 || got[1].Open != 3 {
		t.Errorf("by backend: %+v", got)
	}
}

// TestTopOfTheCluster: other nodes' counts are added, and who is missing is named.
func TestTopOfTheCluster(t *testing.T) {
	s, p := cluster(t)
	s.Meter = &Meter{}
	t.Cleanup(s.Meter.Close)
	top, err := s.Top(t.Context(), url.Values{"cluster": {"1"}})
	if err != nil || top.Node != "" || len(p.asked) != 1 || len(top.Notes) != 0 {
		t.Errorf("%+v %v, asked %v", top, err, p.asked)
	}
}
