//go:build lab

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
)

// checkedBy lets the task ask itself for a page, often.
func checkedBy(url string, retries int) option {
	return func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{
			Test: []string{"CMD", "/whoami", "get", url}, Interval: 300 * time.Millisecond, Timeout: 10 * time.Second, Retries: retries,
		}
	}
}

// health: a task takes part once it is healthy, and no longer than that. Nobody
// who asks meanwhile is left without an answer.
func health(w *world) {
	web := w.start("health-web", 3, published(8250, network.TCP), checkedBy("http://127.0.0.1/health", 2))
	w.answered(ask, w.lab.Hosts(), 8250, 12, "task", slots("health-web", web))
	w.phrase(web[0], "(healthy)")
	w.create("health-never", 1, published(8251, network.TCP), checkedBy("http://127.0.0.1/nowhere", 1000))
	w.eventually(20*time.Second, "a task that is never healthy stays where it starts", func() error {
		tasks, err := w.tasks(map[string][]string{"service": {"health-never"}})
		if err == nil && (len(tasks) != 1 || tasks[0].Status.State != swarm.TaskStateStarting) {
			err = fmt.Errorf("tasks %+v", tasks)
		}
		return err
	})

	clients := w.startLoad(8250, w.lab.Hosts()...)
	ill := web[0]
	// The page itself says 503 from now on, so the client fails.
	if out, err := inside(ill, "get", "http://127.0.0.1/health?set=503"); err == nil {
		w.Errorf("the task is not ill: %s", out)
	}
	var ended swarm.Task
	w.eventually(30*time.Second, "the ill task has ended", func() error {
		err := w.call(http.MethodGet, "/tasks/"+ill.ID, nil, &ended)
		if err == nil && ended.Status.State != swarm.TaskStateFailed {
			err = fmt.Errorf("it is %s", ended.Status.State)
		}
		return err
	})
	if !strings.HasSuffix(ended.Status.Err, "unhealthy container") {
		w.Errorf("it says %q", ended.Status.Err)
	}
	now := w.running("health-web", 3, 30*time.Second)
	w.answered(ask, w.lab.Hosts(), 8250, 12, "task", slots("health-web", now))
	asked, failed := clients.end()
	w.Logf("%d requests while a task was ill, ended and was replaced, %d failed", asked, len(failed))
	if len(failed) > 0 {
		w.Errorf("%d of %d requests failed: %q", len(failed), asked, failed)
	}
	w.refused(8251)
}

// dependent: a task whose health depends on another service asks it before it takes
// part itself, from every host, and need not wait for that.
func dependent(w *world) {
	id := w.network("dependent")
	w.start("dependency", 1, attached(id), on(w.host(1).Name))
	began := time.Now()
	w.startGlobal("dependent", attached(id), checkedBy("http://dependency/", 3))
	w.Logf("healthy on all hosts after %s", time.Since(began).Round(time.Millisecond))
}

// phrase waits until the host of a task shows its container like that.
func (w *world) phrase(task swarm.Task, want string) {
	w.Helper()
	for _, h := range w.lab.Hosts() {
		if h.Name != w.hostname(task.NodeID) {
			continue
		}
		w.eventually(10*time.Second, "the container is shown as "+want, func() error {
			var containers []container.Summary
			filters := encode(map[string][]string{"id": {task.Status.ContainerStatus.ContainerID}, "health": {"healthy"}})
			err := h.Call(w.Context(), http.MethodGet, "/containers/json?filters="+url.QueryEscape(filters), nil, &containers)
			if err == nil && (len(containers) != 1 || !strings.HasSuffix(containers[0].Status, want)) {
				err = fmt.Errorf("containers %+v", containers)
			}
			return err
		})
	}
}
