//go:build lab

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/moby/moby/api/types/network"

	"shoal/bench/need"
	"shoal/control/api"
	"shoal/dataplane/ipvs"
	"shoal/node/netview"
)

// countsConnections: where a service comes whose connections are to be counted, the balancers of
// its networks change, under load and under connections that are open, and nobody
// loses anything.
func countsConnections(w *world) {
	need.Feature(w, "ipvs", ipvs.Probe(w.Context()))
	app := w.network("count-net")
	web := w.start("count-rr", 3, attached(app), published(8270, network.TCP))
	client := w.start("count-client", 1, attached(app))[0]
	w.answered(ask, w.lab.Hosts(), 8270, 12, "task", slots("count-rr", web))
	w.eventually(15*time.Second, "the virtual IP", func() error { return balanced(client, "count-rr", nil, slots("count-rr", web)) })
	open := w.openWays("count-rr", 8270, client, app)
	tasks := map[string]string{}
	for way, c := range open {
		defer c.Close()
		r, err := c.ask()
		w.must(err)
		tasks[way] = r["task"]
	}
	load := w.startLoad(8270, w.lab.Hosts()...)
	lc := w.start("count-lc", 2, attached(app), published(8271, network.TCP), labelled(api.LabelAlgorithm, "lc"))
	w.answered(ask, w.lab.Hosts(), 8271, 12, "task", slots("count-lc", lc))
	w.eventually(15*time.Second, "the virtual IP that counts", func() error { return balanced(client, "count-lc", nil, slots("count-lc", lc)) })
	w.eventually(15*time.Second, "the virtual IP beside it", func() error { return balanced(client, "count-rr", nil, slots("count-rr", web)) })
	if asked, failed := load.end(); len(failed) > 0 {
		w.Errorf("%d of %d requests failed: %.10q", len(failed), asked, failed)
	}
	for way, c := range open {
		if r, err := c.ask(); err != nil || r["task"] != tasks[way] {
			w.Errorf("the connection through %s met %s: now %s (%v)", way, tasks[way], r["task"], err)
		}
	}
	if os.Getenv("SHOAL_LAB_BALANCER") == "auto" {
		w.must(w.driversAre("ipvs"))
	}
	w.undrifted()
}

// driversAre says whether all that balances on the first host does it by that driver.
func (w *world) driversAre(name string) error {
	var seen netview.Balancer
	if err := w.api.Call(w.Context(), http.MethodGet, "/shoal/lb", nil, &seen); err != nil {
		return err
	}
	for _, n := range seen.Namespaces {
		if len(n.Services) > 0 && n.Driver != name {
			return fmt.Errorf("%s is balanced by %s", n.Of, n.Driver)
		}
	}
	return nil
}
