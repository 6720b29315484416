package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/dns/server"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
)

// metric is one that is read at a scrape.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// all are the metrics that are read at a scrape, in the order of their making.
var all []metric

func define(kind prometheus.ValueType, name, help string, labels ...string) metric {
	m := metric{prometheus.NewDesc(name, help, labels, nil), kind}
	all = append(all, m)
	return m
}

func gauge(name, help string, labels ...string) metric {
	return define(prometheus.GaugeValue, name, help, labels...)
}

func counter(name, help string, labels ...string) metric {
	return define(prometheus.CounterValue, name, help, labels...)
}

var (
	failures = gauge("shoal_scrape_failures", "What could not be read at this scrape.", "source")

	steps        = counter("shoal_network_steps_total", "Steps of the loop that keeps the kernel right.")
	stepFailures = counter("shoal_network_step_failures_total", "Steps that failed and are tried again.")
	stepSeconds  = gauge("shoal_network_last_step_seconds", "How long the last step took.")
	healed       = counter("shoal_network_healed_total", "Differences between kernel and wish that somebody else had made and that were put right.", "part")

	networks  = gauge("shoal_overlay_networks", "Overlay networks with a namespace on this node.")
	forwards  = gauge("shoal_overlay_forwarding_entries", "Remote endpoints that this node has forwarding entries for.")
	sandboxes = gauge("shoal_overlay_tasks", "Tasks with a namespace on this node.")
	fronts    = gauge("shoal_balancer_fronts", "Virtual addresses and published ports, counted in every namespace that balances them.")
	backends  = gauge("shoal_balancer_backends", "Backends of those fronts.")
	published = gauge("shoal_translation_forwards", "Ports of the node itself that lead elsewhere.")

	endpoints = gauge("shoal_endpoints", "Endpoint records that this node knows.", "state")
	owners    = gauge("shoal_endpoint_owners", "Nodes that this node has records of.")
	behind    = gauge("shoal_gossip_behind_owners", "Nodes of whom a write is known to be missing.")
	members   = gauge("shoal_gossip_members", "Members of the gossip.", "state")
	queues    = gauge("shoal_gossip_queue_depth", "Messages that wait to be sent.", "queue")
	health    = gauge("shoal_gossip_health_score", "How slow this node takes itself to be: 0 is good.")
	eventsIn  = counter("shoal_gossip_events_received_total", "Events of other nodes.")
	eventsOut = counter("shoal_gossip_events_sent_total", "Events of this node.")
	eventsBad = counter("shoal_gossip_event_failures_total", "Events of this node that could not be sent; digests bring what was in them.")
	records   = counter("shoal_gossip_records_received_total", "Records that were news.")
	corrupt   = counter("shoal_gossip_corrupt_total", "Messages that were not understood.")
	pulls     = counter("shoal_gossip_repairs_total", "Comparisons of digests in which this node got an answer from another one.")
	served    = counter("shoal_gossip_repairs_served_total", "Comparisons of digests that this node answered.")
	joinsBad  = counter("shoal_gossip_join_failures_total", "Joins that failed and are tried again.")

	queries  = counter("shoal_dns_queries_total", "Questions of tasks by kind and outcome.", "kind", "outcome")
	answered = define(prometheus.UntypedValue, "shoal_dns_query_seconds", "How long answers took, by outcome.", "outcome")
	names    = gauge("shoal_dns_names", "Names that tasks of this node can ask for.")
	asking   = gauge("shoal_dns_tasks", "Tasks that have a name server on this node.")

	connections = gauge("shoal_service_connections", "Open connections to a service, from clients on this node or that entered by it.", "service", "via")
	opened      = counter("shoal_service_connections_total", "Connections to a service.", "service", "via")
	bytes       = counter("shoal_service_bytes_total", "Bytes of connections to a service, with their IP headers.", "service", "via", "direction")
	packets     = counter("shoal_service_packets_total", "Packets of connections to a service.", "service", "via", "direction")

	leader    = gauge("shoal_raft_leader", "Whether this manager leads.")
	term      = gauge("shoal_raft_term", "The term of this manager's group.")
	last      = gauge("shoal_raft_last_index", "The newest entry of this manager's log.")
	committed = gauge("shoal_raft_committed_index", "The newest entry that a majority is known to have.")
	applied   = gauge("shoal_raft_applied_index", "The newest entry that this manager's state holds.")
	voters    = gauge("shoal_raft_voters", "Managers that decide.")
)

// collector reads the metrics at a scrape.
type collector struct{ sources func() *Sources }

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, m := range all {
		to <- m.desc
	}
}

// out is where one scrape's values go.
type out chan<- prometheus.Metric

func (o out) put(m metric, value float64, labels ...string) {
	o <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s := c.sources()
	if s == nil {
		return
	}
	o := out(to)
	o.loop(s)
	o.tables(s.Wish())
	o.gossip(s)
	o.dns(s)
	o.services(s)
	if s.Raft != nil {
		o.raft(s)
	}
}

func (o out) loop(s *Sources) {
	status := s.Loop()
	o.put(steps, float64(status.Steps))
	o.put(stepFailures, float64(status.Failures))
	o.put(stepSeconds, status.Took.Seconds())
	for part, n := range s.Repairs() {
		o.put(healed, float64(n), string(part))
	}
}

func (o out) tables(wish plan.Output) {
	entries, frontCount, backendCount, forwardCount := 0, 0, 0, 0
	for _, n := range wish.Overlay.Networks {
		entries += len(n.Peers)
	}
	for _, d := range wish.Balancers {
		frontCount += len(d.Services)
		for _, s := range d.Services {
			backendCount += len(s.Backends)
		}
	}
	for _, t := range wish.Translations {
		if t.Namespace == "" {
			forwardCount += len(t.Forwards)
		}
	}
	o.put(networks, float64(len(wish.Overlay.Networks)))
	o.put(sandboxes, float64(len(wish.Overlay.Sandboxes)))
	o.put(forwards, float64(entries))
	o.put(fronts, float64(frontCount))
	o.put(backends, float64(backendCount))
	o.put(published, float64(forwardCount))
}

func (o out) gossip(s *Sources) {
	view, states := s.View(), map[endpoint.State]int{}
	for _, r := range view.All() {
		states[r.Value.State]++
	}
	for _, state := range []endpoint.State{endpoint.Starting, endpoint.Ready, endpoint.Draining} {
		o.put(endpoints, float64(states[state]), state.String())
	}
	o.put(owners, float64(len(view.Owners())))
	g := s.Gossip()
	o.put(behind, float64(len(g.Behind)))
	byState := map[string]int{}
	for _, m := range g.Members {
		byState[string(m.State)]++
	}
	for state, n := range byState {
		o.put(members, float64(n), state)
	}
	o.put(queues, float64(g.EventQueue), "event")
	o.put(queues, float64(g.IntentQueue), "intent")
	o.put(queues, float64(g.QueryQueue), "query")
	o.put(queues, float64(g.PublishQueue), "publish")
	o.put(health, float64(g.Health))
	o.put(eventsIn, float64(g.EventsIn))
	o.put(eventsOut, float64(g.EventsOut))
	o.put(eventsBad, float64(g.EventsFailed))
	o.put(records, float64(g.RecordsIn))
	o.put(corrupt, float64(g.Corrupt))
	o.put(pulls, float64(g.Pulls))
	o.put(served, float64(g.PullsServed))
	o.put(joinsBad, float64(g.JoinsFailed))
}

// patience bounds how long a scrape waits for the name server's process.
const patience = 2 * time.Second

func (o out) dns(s *Sources) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	counts, err := s.Names(ctx)
	o.failed("dns", err)
	if err != nil {
		return
	}
	o.put(names, float64(counts.Names))
	o.put(asking, float64(counts.Tasks))
	for kind, by := range counts.Queries {
		for outcome, n := range by {
			o.put(queries, float64(n), kind, outcome)
		}
	}
	for outcome, h := range counts.Took {
		o <- histogram(answered.desc, h, outcome)
	}
}

// histogram turns counts by bucket into Prometheus's, which add up.
func histogram(desc *prometheus.Desc, h server.Histogram, labels ...string) prometheus.Metric {
	buckets, total := map[float64]uint64{}, uint64(0)
	for i, n := range h.Buckets {
		total += n
		if i < len(server.TookBounds) {
			buckets[server.TookBounds[i]] = total
		}
	}
	return prometheus.MustNewConstHistogram(desc, total, h.Seconds, buckets, labels...)
}

func (o out) failed(source string, err error) {
	n := 0.0
	if err != nil {
		n = 1
	}
	o.put(failures, n, source)
}

func (o out) services(s *Sources) {
	top, err := s.Services()
	o.failed("services", err)
	for _, u := range top.Usage {
		o.put(connections, float64(u.Open), u.Service, u.Via)
		o.put(opened, float64(u.Total.Connections), u.Service, u.Via)
		o.put(bytes, float64(u.Total.BytesIn), u.Service, u.Via, "in")
		o.put(bytes, float64(u.Total.BytesOut), u.Service, u.Via, "out")
		o.put(packets, float64(u.Total.PacketsIn), u.Service, u.Via, "in")
		o.put(packets, float64(u.Total.PacketsOut), u.Service, u.Via, "out")
	}
}

func (o out) raft(s *Sources) {
	r := s.Raft()
	leads := 0.0
	if r.Leader {
		leads = 1
	}
	o.put(leader, leads)
	o.put(term, float64(r.Term))
	o.put(last, float64(r.Last))
	o.put(committed, float64(r.Committed))
	o.put(applied, float64(r.Applied))
	o.put(voters, float64(r.Voters))
}
