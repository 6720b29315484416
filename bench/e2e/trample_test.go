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

// healed counts the differences that a host has put right.
func (w *world) healed(h lab.Host) (total uint64) {
	w.Helper()
	var healed netview.Healed
	w.must(h.Call(w.Context(), http.MethodGet, "/shoal/healed", nil, &healed))
	for _, n := range healed.Total {
		total += n
	}
	return total
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
		{"balancer", `nft list tables | grep shoal_ | while read -r _ family table; do
				nft delete table $family $table 2>/dev/null && echo $table
			done
			[ ! -e /proc/net/ip_vs ] || ! ipvsadm -Sn | grep -q . || { ipvsadm -C && echo ipvs; }`},
		{"forwarding", `for link in $(links vx); do bridge fdb show dev $link | while read -r mac rest; do
				case $rest in
				*permanent*) ;;
				*dst*) bridge fdb del $mac dev $link self 2>/dev/null && echo $mac ;;
				*master*) bridge fdb del $mac dev $link master 2>/dev/null && echo $mac ;;
				esac
			done; done
			for link in $(links vx br0); do ip neigh flush dev $link nud permanent 2>/dev/null && echo $link; done`},
		{"mesh", `cut_off lb0`},
		{"overlay", `cut_off vx`},
		{"bridge", `cut_off br0`},
		{"tasks", `cut_off sv sg`},
		{"gateway", `cut_off shoal_gw`},
		{"routes", `ip route show table all proto 83 | while read -r route; do ip route del $route 2>/dev/null && echo route; done
			ip rule show pref 8300 | grep -q . && ip rule del pref 8300 && echo rule`},
		{"settings", `for file in /proc/sys/net/ipv4/ip_forward /proc/sys/net/bridge/bridge-nf-call-iptables 				/proc/sys/net/ipv4/conf/*/route_localnet /proc/sys/net/ipv4/vs/conntrack; do
				[ "$(links shoal_gw br0)" ] && [ -e $file ] && echo $((1 - $(cat $file))) >$file && echo $file
			done`},
		{"additions", `nft list tables | grep -E 'shoal_(lb|nat|ipvs)' | while read -r _ family table; do
				nft add chain $family $table stray 2>/dev/null && echo $table
			done
			for link in $(links br0); do ip link add stray0 type bridge && echo stray0; ip addr add 10.99.0.1/24 dev $link && echo 10.99.0.1; done
			for link in $(links vx); do bridge fdb append 02:42:00:00:00:99 dev $link dst 10.80.0.99 self 2>/dev/null && echo fdb; done
			for link in $(links shoal_gw); do ip addr add 172.18.0.99/16 dev $link && echo 172.18.0.99; done`},
	} {
		before := w.healed(victim)
		w.damage(victim, damage.name, damage.script)
		began := time.Now()
		works()
		if after := w.healed(victim); after <= before {
			w.Errorf("%s: %s remembers no repair, %d before and %d after", damage.name, victim.Name, before, after)
		}
		w.Logf("%s: all works again %s after the damage", damage.name, time.Since(began).Round(time.Millisecond))
	}
}

// prelude are the functions of damaging scripts: links lists links by how their
// names begin, cut_off deletes them and says so. What the daemon heals or changes
// meanwhile is no failure.
const prelude = `
links() { for p; do ip -o link show | sed -n "s/^[0-9]*: \($p[^:@]*\)[:@].*/\1/p"; done; }
cut_off() { for link in $(links "$@"); do ip link del $link 2>/dev/null && echo $link; done; }
`

// damage runs a script in the host's own namespace and in every one that the
// daemon made there. It prints what it damaged, which must be something.
func (w *world) damage(h lab.Host, name, script string) {
	w.Helper()
	made, err := filepath.Glob(filepath.Join(h.Dir, "exec", "netns", "*"))
	w.must(err)
	var done []string
	for _, path := range append(made, "/run/netns/"+h.Namespace) {
		cmd := exec.Command("nsenter", "--net="+path, "sh", "-c", prelude+script+"\ntrue")
		out, err := cmd.Output()
		if err != nil {
			w.Errorf("damage %s in %s: %v", name, path, err)
		}
		done = append(done, strings.Fields(string(out))...)
	}
	if len(done) == 0 {
		w.Errorf("%s: there was nothing to damage", name)
	}
	w.Logf("%s: deleted %d: %.200s", name, len(done), strings.Join(done, " "))
}
