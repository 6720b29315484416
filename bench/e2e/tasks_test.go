//go:build lab

package e2e

import (
	"fmt"
	"maps"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/network"
)

// scaleUpDown: whoever asks all the while is always answered, and once the tasks
// run all of them take part.
func scaleUpDown(w *world) {
	w.start("scale-web", 2, published(8204, network.TCP))
	w.eventually(10*time.Second, "the mesh answers", func() error {
		for _, h := range w.lab.Hosts() {
			if _, err := ask(h, 8204); err != nil {
				return err
			}
		}
		return nil
	})
	clients := w.startLoad(8204, w.lab.Hosts()...)
	for _, replicas := range []int{8, 3, 6, 1} {
		w.must(w.scale("scale-web", uint64(replicas)))
		tasks := w.running("scale-web", replicas, 30*time.Second)
		w.answered(ask, w.lab.Hosts(), 8204, 5*replicas, "task", slots("scale-web", tasks))
	}
	asked, failed := clients.end()
	w.Logf("%d requests while scaling, %d failed", asked, len(failed))
	if len(failed) > 0 {
		w.Errorf("%d of %d requests failed while scaling: %q", len(failed), asked, failed)
	}
	w.must(w.scale("scale-web", 0))
	w.refused(8204)
	w.must(w.scale("scale-web", 2))
	tasks := w.running("scale-web", 2, 30*time.Second)
	w.answered(ask, w.lab.Hosts(), 8204, 10, "task", slots("scale-web", tasks))
}

// taskKilledIsReplaced: a task that dies is replaced, and no request after that
// meets the dead one.
func taskKilledIsReplaced(w *world) {
	before := w.start("kill-web", 3, published(8205, network.TCP))
	w.answered(ask, w.lab.Hosts(), 8205, 12, "task", slots("kill-web", before))
	w.must(syscall.Kill(pid(before[0]), syscall.SIGKILL))
	w.eventually(30*time.Second, "another task runs instead", func() error {
		now := ids(w.running("kill-web", 3, 30*time.Second))
		if _, still := now[before[0].ID]; still {
			return fmt.Errorf("the killed task still counts: %v", now)
		}
		return nil
	})
	w.answered(ask, w.lab.Hosts(), 8205, 30, "task", slots("kill-web", before))
}

// shoaldKill9: the daemon dies at any moment, also in the middle of a change. Its
// tasks go on, it finds them again, and nothing half-made stays.
func shoaldKill9(w *world) {
	web := w.start("nine-web", 6, published(8206, network.TCP))
	victim := w.host(2)
	w.must(w.lab.KillDaemon(w.Context(), victim))
	for _, task := range web {
		if err := syscall.Kill(pid(task), 0); err != nil {
			w.Errorf("task %s on %s ended with the daemon: %v", task.ID, w.hostname(task.NodeID), err)
		}
	}
	w.must(w.lab.Heal(w.Context()))
	w.same("nine-web", ids(web))
	w.answered(ask, w.lab.Hosts(), 8206, 30, "task", slots("nine-web", web))
	for round, pause := range []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond} {
		want := uint64(12 - 3*round)
		w.must(w.scale("nine-web", want))
		time.Sleep(pause) // where in the change the daemon dies
		w.must(w.lab.KillDaemon(w.Context(), victim))
		w.must(w.lab.Heal(w.Context()))
		tasks := w.running("nine-web", int(want), 60*time.Second)
		w.answered(ask, w.lab.Hosts(), 8206, 5*len(tasks), "task", slots("nine-web", tasks))
		w.undrifted()
		w.onlyWanted()
	}
}

// same waits until the tasks of a service are those with these processes.
func (w *world) same(name string, before map[string]int) {
	w.Helper()
	w.eventually(20*time.Second, "the same tasks with the same processes", func() error {
		now := ids(w.running(name, len(before), 30*time.Second))
		if !maps.Equal(before, now) {
			return fmt.Errorf("before %v, now %v", before, now)
		}
		return nil
	})
}

// onlyWanted checks that each host has a container for every task that shall run
// there, and no other that runs.
func (w *world) onlyWanted() {
	w.Helper()
	for _, h := range w.lab.Hosts() {
		w.eventually(20*time.Second, "no container without a task on "+h.Name, func() error {
			var containers []struct{ Labels map[string]string }
			if err := h.Call(w.Context(), "GET", "/containers/json", nil, &containers); err != nil {
				return err
			}
			tasks, err := w.tasks(map[string][]string{"node": {h.Name}, "desired-state": {"running"}})
			if err != nil {
				return err
			}
			wanted := map[string]bool{}
			for _, task := range tasks {
				wanted[task.ID] = true
			}
			for _, c := range containers {
				if id := c.Labels["com.docker.swarm.task.id"]; !wanted[id] {
					return fmt.Errorf("the container of task %q runs", id)
				}
			}
			if len(containers) != len(tasks) {
				return fmt.Errorf("%d containers for %d tasks", len(containers), len(tasks))
			}
			return nil
		})
	}
}
