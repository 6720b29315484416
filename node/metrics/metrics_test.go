package metrics

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/control/raftnode"
	"shoal/dataplane/lb"
	"shoal/dns/server"
	"shoal/node/fabric"
	"shoal/node/netview"
	"shoal/node/plan"
	"shoal/node/reconcile"
	"shoal/node/resolver"
	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
	"shoal/overlay/vxlan"
)

// sources have a value for every metric.
func sources() *Sources {
	table := endpoint.New("n1", 1)
	table.Set("t1", endpoint.Value{})
	counts := resolver.Counts{Tasks: 2, Names: 9}
	counts.Queries = map[string]map[string]uint64{"A": {"local": 7, "forwarded": 1}}
	counts.Took = map[string]server.Histogram{"local": {Buckets: []uint64{1, 2, 0, 0, 0, 0, 0, 0, 3}, Seconds: 1.5}}
	return &Sources{
		View: table.View,
		Gossip: func() gossip.Stats {
			return gossip.Stats{Members: []gossip.Member{{State: gossip.Alive}, {State: gossip.Alive}, {State: gossip.Failed}}, EventQueue: 3}
		},
		Wish: func() plan.Output {
			return plan.Output{Overlay: vxlan.Desired{Networks: []vxlan.Network{{Peers: make([]vxlan.Peer, 4)}}},
				Balancers: []lb.Desired{{Services: []lb.Service{{Backends: make([]lb.Backend, 5)}}}}}
		},
		Loop:    func() reconcile.Status { return reconcile.Status{Steps: 11, Failures: 2, Took: time.Second} },
		Repairs: func() map[fabric.Part]uint64 { return map[fabric.Part]uint64{fabric.PartOverlay: 6} },
		Names:   func(context.Context) (resolver.Counts, error) { return counts, nil },
		Services: func() (netview.Top, error) {
			return netview.Top{Usage: []netview.Usage{{Service: "web", Via: "mesh", Open: 4, Total: netview.Traffic{Connections: 8, BytesIn: 100, BytesOut: 200}}}}, nil
		},
		Raft: func() raftnode.Stats { return raftnode.Stats{Leader: true, Term: 3, Voters: 5} },
	}
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	res := httptest.NewRecorder()
	m.Handler().ServeHTTP(res, httptest.NewRequest("GET", "/metrics", nil))
	if res.Code != 200 {
		t.Fatalf("%d %s", res.Code, res.Body)
	}
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestScrape(t *testing.T) {
	m := New("v1", "nft", sources)
	m.Programmed(3 * time.Millisecond)
	m.Settled(5*time.Millisecond, 0)
	m.Settled(2*time.Second, 2)
	text := scrape(t, m)
	for _, want := range []string{
		`shoal_build_info{balancer="nft",version="v1"} 1`, `shoal_network_programming_seconds_bucket{le="0.004"} 1`,
		"shoal_network_settle_seconds_count 1", "shoal_network_settle_missing_nodes_total 2", "shoal_network_steps_total 11",
		`shoal_network_healed_total{part="overlay"} 6`, `shoal_gossip_members{state="alive"} 2`, `shoal_gossip_queue_depth{queue="event"} 3`,
		"shoal_overlay_forwarding_entries 4", "shoal_balancer_backends 5", `shoal_endpoints{state="ready"} 1`,
		`shoal_dns_queries_total{kind="A",outcome="local"} 7`, `shoal_dns_query_seconds_bucket{outcome="local",le="0.0001"} 3`,
		`shoal_dns_query_seconds_bucket{outcome="local",le="+Inf"} 6`, `shoal_dns_query_seconds_sum{outcome="local"} 1.5`,
		`shoal_service_connections{service="web",via="mesh"} 4`, `shoal_service_bytes_total{direction="out",service="web",via="mesh"} 200`,
		"shoal_raft_leader 1", "shoal_raft_term 3", "go_goroutines ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestScrapeWithoutSources: what cannot be read is missing and the rest is there;
// a node in no cluster has its own numbers only, a worker no manager's.
func TestScrapeWithoutSources(t *testing.T) {
	s := sources()
	s.Names = func(context.Context) (resolver.Counts, error) { return resolver.Counts{}, errors.New("no process") }
	s.Raft = nil
	text := scrape(t, New("v1", "nft", func() *Sources { return s }))
	if !strings.Contains(text, `shoal_scrape_failures{source="dns"} 1`) || strings.Contains(text, "shoal_dns_") || strings.Contains(text, "shoal_raft_") ||
		!strings.Contains(text, `shoal_scrape_failures{source="services"} 0`) || !strings.Contains(text, "shoal_network_steps_total 11") {
		t.Error(text)
	}
	text = scrape(t, New("v1", "nft", func() *Sources { return nil }))
	if !strings.Contains(text, "shoal_build_info") || strings.Contains(text, "shoal_gossip") {
		t.Error(text)
	}
}

// TestDocumented: every metric that a scrape gives is on the page with its type,
// and every one on the page is given.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(shoal_[a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(page), -1) {
		told[m[1]] = m[2]
	}
	given := map[string]string{}
	m := New("v1", "nft", sources)
	for _, l := range regexp.MustCompile("(?m)^# TYPE (shoal_[a-z_]+) ([a-z]+)$").FindAllStringSubmatch(scrape(t, m), -1) {
		given[l[1]] = l[2]
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if told[name] != given[name] {
			t.Errorf("%s is a %s, and %q on the page", name, given[name], told[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(told)) {
		if given[name] == "" {
			t.Errorf("%s is on the page, and nowhere else", name)
		}
	}
	if len(given) < len(all) {
		t.Errorf("%d metrics for %d definitions", len(given), len(all))
	}
}
