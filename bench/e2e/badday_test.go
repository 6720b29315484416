//go:build lab

package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/node/netview"
	"shoal/overlay/gossip"
)

// hostPowerCut: the tasks of a host that is gone run elsewhere, nobody is sent to
// it any more, and when it comes back all tables agree again.
func hostPowerCut(w *world) {
	w.start("cut-web", 6, published(8207, network.TCP))
	victim, alive := w.host(3), w.lab.Hosts()[:2]
	began := time.Now()
	w.must(w.lab.PowerCut(w.Context(), victim))
	w.eventually(60*time.Second, "no task counts on the dead host", func() error {
		for _, task := range w.running("cut-web", 6, 60*time.Second) {
			if name := w.hostname(task.NodeID); name == victim.Name {
				return fmt.Errorf("task %s is still on %s", task.ID, name)
			}
		}
		return nil
	})
	w.Logf("all six run elsewhere after %s", time.Since(began).Round(time.Millisecond))
	tasks := w.running("cut-web", 6, 10*time.Second)
	w.answered(ask, alive, 8207, 60, "task", slots("cut-web", tasks))
	w.must(w.lab.Heal(w.Context()))
	w.agreed()
	tasks = w.running("cut-web", 6, 30*time.Second)
	w.answered(ask, w.lab.Hosts(), 8207, 60, "task", slots("cut-web", tasks))
	w.onlyWanted()
	w.undrifted()
}

// agreed waits until the endpoint tables of all hosts are equal.
func (w *world) agreed() {
	w.Helper()
	w.eventually(30*time.Second, "the endpoint tables agree", func() error {
		var sums []uint64
		for _, h := range w.lab.Hosts() {
			var stats gossip.Stats
			if err := h.Call(w.Context(), http.MethodGet, "/shoal/gossip", nil, &stats); err != nil {
				return err
			}
			if len(stats.Behind) > 0 {
				return fmt.Errorf("%s is behind on %v", h.Name, stats.Behind)
			}
			sums = append(sums, stats.DigestSum)
			if sums[0] != stats.DigestSum {
				return fmt.Errorf("digests %x", sums)
			}
		}
		return nil
	})
}

// leaderKilled: writes go on under another leader, and every write that was
// acknowledged is there afterwards, on every manager.
func leaderKilled(w *world) {
	leader := w.leader()
	w.api = w.lab.Hosts()[leader.Index%3] // another one
	var acknowledged []string
	write := func() error {
		name := fmt.Sprintf("write-%d", len(acknowledged))
		var made struct{ ID string }
		if err := w.call(http.MethodPost, "/services/create", define(name, 0), &made); err != nil {
			return err
		}
		acknowledged = append(acknowledged, made.ID)
		return nil
	}
	for range 10 {
		w.must(write())
	}
	killed := time.Now()
	w.must(w.lab.KillDaemon(w.Context(), leader))
	w.eventually(20*time.Second, "a write without the old leader", write)
	w.Logf("the first write after %s", time.Since(killed).Round(time.Millisecond))
	for range 10 {
		w.must(write())
	}
	w.must(w.lab.Heal(w.Context()))
	for _, h := range w.lab.Hosts() {
		w.api = h
		for _, id := range acknowledged {
			w.eventually(10*time.Second, "an acknowledged write on "+h.Name, func() error {
				_, err := w.service(id)
				return err
			})
		}
	}
}

// leader is the host that leads.
func (w *world) leader() (found lab.Host) {
	w.Helper()
	w.eventually(20*time.Second, "a leader", func() error {
		nodes, err := get[[]swarm.Node](w, "/nodes", nil)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.ManagerStatus != nil && n.ManagerStatus.Leader {
				found, err = w.lab.Host(n.Description.Hostname)
				return err
			}
		}
		return fmt.Errorf("none of %d nodes leads", len(nodes))
	})
	return found
}

// majorityLost: without a majority nothing is decided, and whoever tries is told
// who is missing; what runs goes on, the mesh and the names answer. With the
// majority back all is as before.
func majorityLost(w *world) {
	id := w.network("major-net")
	web := w.start("major-web", 6, published(8208, network.TCP), attached(id))
	client := w.startGlobal("major-client", attached(id))
	w.answered(ask, w.lab.Hosts(), 8208, 30, "task", slots("major-web", web))
	before := ids(web)
	for _, h := range w.lab.Hosts()[1:] {
		w.must(w.lab.KillDaemon(w.Context(), h))
	}
	uncertain := false
	w.eventually(20*time.Second, "a write is refused with the names of the missing", func() error {
		err := w.call(http.MethodPost, "/services/create", define("major-no", 1), nil)
		if err == nil {
			return fmt.Errorf("the write was acknowledged")
		}
		uncertain = uncertain || strings.Contains(err.Error(), "whether the change is made will show")
		for _, word := range []string{"503", "no quorum: 1 of 3 managers", "h2", "h3"} {
			if !strings.Contains(err.Error(), word) {
				return err
			}
		}
		return nil
	})
	w.goesOn(client)
	for task, process := range before {
		if process == 0 {
			w.Errorf("task %s has no process", task)
		}
	}
	w.must(w.lab.Heal(w.Context()))
	if _, err := w.service("major-no"); err == nil && !uncertain {
		w.Error("a write that was refused for certain is there")
	}
	w.same("major-web", before)
	w.answered(ask, w.lab.Hosts(), 8208, 30, "task", slots("major-web", web))
	w.agreed()
	w.must(w.scale("major-web", 3))
	tasks := w.running("major-web", 3, 30*time.Second)
	w.answered(ask, w.lab.Hosts(), 8208, 15, "task", slots("major-web", tasks))
}

// goesOn: every host's mesh answers, and a task on every host, whether or not its
// daemon lives, finds and reaches a service by its name.
func (w *world) goesOn(clients []swarm.Task) {
	w.Helper()
	for _, h := range w.lab.Hosts() {
		w.eventually(15*time.Second, "the mesh of "+h.Name+" goes on", func() error {
			_, err := answers(ask, h, 8208, 30, "task")
			return err
		})
	}
	for _, client := range clients {
		w.eventually(15*time.Second, "names go on", func() error {
			_, err := inside(client, "get", "-n", "10", "http://major-web/")
			return err
		})
	}
}

// allManagersRestart: every daemon dies at once; all is as before once they are
// back. The first one hears of nobody for a while, and takes nothing away: no
// request is lost.
func allManagersRestart(w *world) {
	web := w.start("again-web", 6, published(8209, network.TCP))
	before := ids(web)
	w.answered(ask, w.lab.Hosts(), 8209, 30, "task", slots("again-web", web))
	alone := w.host(1)
	w.eventually(10*time.Second, alone.Name+" remembers every task", func() error {
		memory, err := os.ReadFile(filepath.Join(alone.Dir, "network", "endpoints"))
		for _, name := range slots("again-web", web) {
			if err == nil && !bytes.Contains(memory, []byte(name)) {
				err = fmt.Errorf("%s is not on disk", name)
			}
		}
		return err
	})
	load := w.startLoad(8209, w.lab.Hosts()...)
	for _, h := range w.lab.Hosts() {
		w.must(w.lab.KillDaemon(w.Context(), h))
	}
	w.must(w.lab.StartDaemon(w.Context(), alone))
	w.eventually(20*time.Second, "the network of "+alone.Name+" is looked after", func() error {
		var drift netview.Drift
		if err := alone.Call(w.Context(), http.MethodGet, "/shoal/drift", nil, &drift); err != nil {
			return err
		}
		if drift.Loop.Steps < 2 || len(drift.Differences) > 0 {
			return fmt.Errorf("after %d looks: %q", drift.Loop.Steps, drift.Differences)
		}
		return nil
	})
	w.answered(ask, []lab.Host{alone}, 8209, 30, "task", slots("again-web", web))
	w.must(w.lab.Heal(w.Context()))
	w.same("again-web", before)
	if asked, failed := load.end(); len(failed) > 0 {
		w.Errorf("%d of %d requests failed while all daemons restarted: %.10q", len(failed), asked, failed)
	} else {
		w.Logf("%d requests while all daemons restarted, none failed", asked)
	}
	w.answered(ask, w.lab.Hosts(), 8209, 30, "task", slots("again-web", web))
	w.must(w.scale("again-web", 9))
	tasks := w.running("again-web", 9, 30*time.Second)
	w.answered(ask, w.lab.Hosts(), 8209, 45, "task", slots("again-web", tasks))
	w.agreed()
	w.undrifted()
}
