// Package metrics shows a node's numbers to Prometheus. Most are read when
// somebody scrapes, from those who keep them anyway; only durations are noted as
// they happen. It owns the names of the metrics and keeps no state of its own
// beside them.
package metrics

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"shoal/control/raftnode"
	"shoal/node/fabric"
	"shoal/node/netview"
	"shoal/node/plan"
	"shoal/node/reconcile"
	"shoal/node/resolver"
	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
)

// Sources are where numbers come from; those of a node outside any cluster are nil.
type Sources struct {
	Gossip func() gossip.Stats
	View   func() *endpoint.View
	Wish   func() plan.Output
	// Loop is how the node's network loop is doing, Repairs what it put right.
	Loop    func() reconcile.Status
	Repairs func() map[fabric.Part]uint64
	Names   func(context.Context) (resolver.Counts, error)
	// Services reads what services are used for.
	Services func() (netview.Top, error)
	// Raft is nil on workers.
	Raft func() raftnode.Stats
}

// Metrics is a node's numbers.
type Metrics struct {
	registry *prometheus.Registry
	// programmed and settled are noted as they happen.
	programmed, settled prometheus.Histogram
	missed              prometheus.Counter
}

// seconds are the buckets of durations of the network: 1 ms to 16 s.
var seconds = prometheus.ExponentialBuckets(0.001, 2, 15)

// New returns the metrics of a node; sources returns nil outside a cluster.
func New(version, balancer string, sources func() *Sources) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		programmed: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shoal_network_programming_seconds", Buckets: seconds,
			Help: "From the moment this node heard of a change to the moment its kernel had it."}),
		settled: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "shoal_network_settle_seconds", Buckets: seconds,
			Help: "From the moment a task of this node was put into service, or taken out of it, to the moment every live node had confirmed that its kernel follows."}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{Name: "shoal_network_settle_missing_nodes_total",
			Help: "Nodes that did not confirm in time that they follow a task's change."}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "shoal_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "balancer": balancer}})
	info.Set(1)
	m.registry.MustRegister(m.programmed, m.settled, m.missed, info, collector{sources},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Programmed notes that a change took so long to reach the kernel.
func (m *Metrics) Programmed(took time.Duration) { m.programmed.Observe(took.Seconds()) }

// Settled notes how long all other nodes took to follow a task that was put into
// service or taken out of it, or how many did not in time.
func (m *Metrics) Settled(took time.Duration, missing int) {
	if missing > 0 {
		m.missed.Add(float64(missing))
		return
	}
	m.settled.Observe(took.Seconds())
}

// scrapesAtOnce bounds the work that scraping makes.
const scrapesAtOnce = 2

// Handler answers scrapes. What cannot be read is left out, and counted by
// shoal_scrape_failures.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce, Timeout: 10 * time.Second})
}
