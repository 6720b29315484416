//go:build lab

package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"shoal/bench/lab"
	"shoal/node/netview"
)

// undrifted waits until every host's kernel has exactly what it should have.
func (w *world) undrifted() {
	w.Helper()
	for _, h := range w.lab.Hosts() {
		w.eventually(20*time.Second, "no drift on "+h.Name, func() error {
			var drift netview.Drift
			if err := h.Call(w.Context(), http.MethodGet, "/shoal/drift", nil, &drift); err != nil {
				return err
			}
			if len(drift.Differences) > 0 || drift.Loop.Err != "" {
				return fmt.Errorf("%q, last error %q", drift.Differences, drift.Loop.Err)
			}
			return nil
		})
	}
}

// trample: whoever deletes by hand what Shoal put into the kernel finds it healed
// a few seconds later, and every way through the network works again.
func trample(w *world) {
	id := w.network("trample-net")
	web := w.start("trample-web", 6, published(8210, network.TCP), attached(id))
	clients := w.startGlobal("trample-client", attached(id))
	works := func() {
		w.Helper()
		w.answered(ask, w.lab.Hosts(), 8210, 30, "task", slots("trample-web", web))
		for _, client := range clients {
			w.eventually(15*time.Second, "the virtual IP answers", func() error {
				return balanced(client, "trample-web", addresses(client, id), slots("trample-web", web))
			})
		}
		w.undrifted()
	}
	works()
	victim := w.host(2)
	for _, damage := range []struct {
		name   string
		script string
	}{
		{"balancer", `nft list tables | grep shoal_ | while read -r _ family table; do nft delete table $family $table; done
			[ ! -e /proc/net/ip_vs ] || ipvsadm -C`},
		{"forwarding", `for link in $(links vx); do
				bridge fdb show dev $link | grep -v permanent | while read -r mac rest; do bridge fdb del $mac dev $link master 2>/dev/null; done
				bridge fdb show dev $link | grep dst | while read -r mac rest; do bridge fdb del $mac dev $link self 2>/dev/null; done
			done; for link in $(links vx br0); do ip neigh flush dev $link nud permanent; done`},
		{"mesh", `for link in $(links lb0); do ip link del $link; done`},
		{"overlay", `for link in $(links vx); do ip link del $link; done`},
		{"bridge", `for link in $(links br0); do ip link del $link; done`},
		{"tasks", `for link in $(links sv sg); do ip link del $link; done`},
		{"gateway", `for link in $(links shoal_gw); do ip link del $link; done`},
	} {
		w.damage(victim, damage.name, damage.script)
		began := time.Now()
		works()
		w.Logf("%s: all works again %s after the damage", damage.name, time.Since(began).Round(time.Millisecond))
	}
}

// damage runs a script in the host's own namespace and in every one that the
// daemon made there. The function links lists links by how their names begin.
func (w *world) damage(h lab.Host, name, script string) {
	w.Helper()
	made, err := filepath.Glob(filepath.Join(h.Dir, "exec", "netns", "*"))
	w.must(err)
	const links = `links() { for p; do ip -o link show | sed -n "s/^[0-9]*: \($p[^:@]*\)[:@].*/\1/p"; done; }
	`
	for _, path := range append(made, "/run/netns/"+h.Namespace) {
		cmd := exec.Command("nsenter", "--net="+path, "sh", "-c", links+script)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			w.Errorf("damage %s in %s: %v: %s", name, path, err, strings.TrimSpace(string(out)))
		}
	}
}
