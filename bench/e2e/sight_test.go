//go:build lab

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
	"shoal/dataplane/trace"
	"shoal/node/netview"
)

// trace asks a host where a packet goes.
func (w *world) trace(h lab.Host, from, to, protocol string, live bool) netview.Route {
	w.Helper()
	q := url.Values{"from": {from}, "to": {to}, "protocol": {protocol}}
	if live {
		q.Set("live", "1")
	}
	var r netview.Route
	w.must(h.Call(w.Context(), http.MethodGet, "/shoal/trace?"+q.Encode(), nil, &r))
	return r
}

// sight: what netctl and Prometheus show of the network is what it does.
func sight(w *world) {
	app, back := w.network("sight-app"), w.network("sight-back")
	web := w.start("sight-web", 3, published(8260, network.TCP), attached(app))
	other := w.start("sight-other", 1, attached(back), on("h2"))
	clients := w.startGlobal("sight-client", attached(app))
	w.answered(ask, w.lab.Hosts(), 8260, 6, "task", slots("sight-web", web))
	client := clients[0]
	for _, c := range clients {
		if w.hostname(c.NodeID) == "h3" {
			client = c // asked for on another node
		}
	}
	w.eventually(15*time.Second, "the virtual IP answers", func() error {
		return balanced(client, "sight-web", addresses(client, app), slots("sight-web", web))
	})
	followed(w, client)
	explained(w, client, other[0], app)
	counted(w, client)
	scraped(w)
}

// followed: real packets go as planned.
func followed(w *world, client swarm.Task) {
	h1 := w.host(1)
	for _, row := range []struct{ from, to, protocol, outcome string }{
		{client.ID, "sight-web:80", "", "connected"}, {client.ID, "sight-web:80", "udp", "answered"}, {client.ID, "sight-web", "", ""},
		{client.ID, "sight-web:81", "", "refused"}, {"h2", h1.Address.String() + ":8260", "", "connected"},
		{"host", h1.Address.String() + ":8261", "", "refused"}, {client.ID, h1.Address.String() + ":8260", "", "connected"},
	} {
		w.eventually(10*time.Second, fmt.Sprintf("a packet from %s to %s %s goes as planned", row.from, row.to, row.protocol), func() error {
			r := w.trace(h1, row.from, row.to, row.protocol, true)
			switch {
			case r.Live == nil:
				return fmt.Errorf("no packet was sent: %+v", r)
			case r.Live.Way == 0 || r.Live.Differs != "":
				return fmt.Errorf("way %d, %q: %+v, planned %+v", r.Live.Way, r.Live.Differs, r.Live.Seen, r.Paths)
			case row.outcome != "" && r.Live.Outcome != row.outcome:
				return fmt.Errorf("the sender learnt %q, want %q", r.Live.Outcome, row.outcome)
			}
			return nil
		})
	}
}

// explained: what has no way is told why.
func explained(w *world, client, other swarm.Task, app string) {
	h1 := w.host(1)
	for _, row := range []struct {
		from, to string
		verdict  trace.Verdict
		reason   string
	}{
		{"outside", h1.Address.String() + ":8261", trace.Refused, "nothing listens on 8261/tcp in h1, and no service publishes that port"},
		{client.ID, "sight-other:80", trace.NoName, `"sight-other" is on network sight-back, but sight-client.`},
		{other.ID, addresses(client, app)[0] + ":80", trace.NoRoute, "on network sight-app, and sight-other.1 is not on that network"},
	} {
		r := w.trace(h1, row.from, row.to, "", false)
		if len(r.Paths) != 1 || r.Paths[0].Verdict != row.verdict && r.Paths[0].Verdict != trace.Left || !strings.Contains(r.Paths[0].Reason, row.reason) {
			w.Errorf("from %s to %s: %+v, want %q because %q", row.from, row.to, r.Paths, row.verdict, row.reason)
		}
	}
}

// counted: connections are counted once, by their way.
func counted(w *world, client swarm.Task) {
	h1, h3 := w.host(1), w.host(3)
	look := func(h lab.Host, via string) (n uint64) {
		var top netview.Top
		w.must(h.Call(w.Context(), http.MethodGet, "/shoal/top", nil, &top))
		for _, u := range top.Usage {
			if u.Service == "sight-web" && u.Via == via {
				n += u.Total.Connections
			}
		}
		return n
	}
	mesh, virtual := look(h1, "mesh"), look(h3, "virtual IP")
	const n = 20
	if _, err := answers(ask, h1, 8260, n, "task"); err != nil {
		w.Error(err)
	}
	if _, err := inside(client, "get", "-n", strconv.Itoa(n), "http://sight-web/"); err != nil {
		w.Error(err)
	}
	w.eventually(10*time.Second, "connections are counted", func() error {
		if a, b := look(h1, "mesh")-mesh, look(h3, "virtual IP")-virtual; a != n || b != n {
			return fmt.Errorf("%d by the mesh and %d by the virtual IP, want %d each", a, b, n)
		}
		return nil
	})
}

// scraped: metrics are there on the socket, and over the network for members only.
func scraped(w *world) {
	h1, h3 := w.host(1), w.host(3)
	text := w.scrape(h1.Client(), "http://h1/metrics")
	for _, want := range []string{
		`shoal_service_connections_total\{service="sight-web",via="mesh"\} [1-9]`, `shoal_gossip_members\{state="alive"\} 3`, `shoal_network_programming_seconds_count [1-9]`,
		`shoal_dns_queries_total\{kind="A",outcome="local"\} \d`, `shoal_raft_voters 3`, `shoal_scrape_failures\{source="dns"\} 0`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			w.Errorf("no %s in\n%s", want, text)
		}
	}
	identity := filepath.Join(h1.Dir, "certificates", "identity.pem")
	pair, err := tls.LoadX509KeyPair(identity, identity)
	w.must(err)
	member := w.over(h3, []tls.Certificate{pair})
	if text := w.scrape(member, "https://h3:7946/metrics"); !strings.Contains(text, "shoal_gossip_members") {
		w.Errorf("a member is told %q", text)
	}
	if answer, err := w.over(h3, nil).Get("https://h3:7946/metrics"); err == nil {
		answer.Body.Close()
		w.Errorf("somebody without a certificate is told %s", answer.Status)
	}
}

// over is a client of a host's gossip port.
func (w *world) over(h lab.Host, certificates []tls.Certificate) *http.Client {
	return &http.Client{Timeout: labtest.Within(5 * time.Second), Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{Certificates: certificates, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(h.Address.String(), "7946"))
		},
	}}
}

func (w *world) scrape(c *http.Client, target string) string {
	w.Helper()
	answer, err := c.Get(target)
	w.must(err)
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	w.must(err)
	return string(raw)
}
