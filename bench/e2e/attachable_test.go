//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
)

// attachable: containers that somebody starts on a host live beside services, reach
// them and are reached by name, outlive the daemon, and leave nothing behind.
func attachable(w *world) {
	open, closed := w.attachableNetwork("att-open"), w.network("att-closed")
	service := w.start("att-web", 3, attached(open))
	h2 := w.host(2)
	for target, text := range map[string]string{closed: "network att-closed is not manually attachable", "att-nope": "network att-nope not found"} {
		if _, err := w.newContainer(h2, "", target); err == nil || !strings.Contains(err.Error(), text) {
			w.Errorf("on network %s: %v", target, err)
		}
	}
	box := w.runContainer(h2, "att-box", open)
	w.reachesService(box, service)
	w.reachedFrom(service, box)
	w.listed(h2, box, open)

	w.must(w.lab.KillDaemon(w.Context(), h2))
	w.must(w.lab.StartDaemon(w.Context(), h2))
	w.eventually(30*time.Second, "the container outlives the daemon", func() error {
		again, err := w.containerOn(h2, box.ID)
		if err == nil && (!again.State.Running || again.State.Pid != box.State.Pid) {
			err = fmt.Errorf("it is %+v", again.State)
		}
		return err
	})
	w.reachesService(box, service)
	w.reachedFrom(service, box)
	w.removeServices()
	w.eventually(20*time.Second, "the container alone holds its network", func() error {
		err := w.call(http.MethodDelete, "/networks/"+open, nil, nil)
		if err == nil || !strings.Contains(err.Error(), "is in use by container att-box") {
			return fmt.Errorf("removing it: %v", err)
		}
		return nil
	})
	w.leavesNothing(h2, box, open)
}

func (w *world) attachableNetwork(name string) string {
	w.Helper()
	var made network.CreateResponse
	w.must(w.call(http.MethodPost, "/networks/create", network.CreateRequest{Name: name, Driver: "overlay", Attachable: true}, &made))
	w.networks = append(w.networks, made.ID)
	return made.ID
}

// on asks one host's API.
func (w *world) on(h lab.Host, method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), labtest.Within(30*time.Second))
	defer cancel()
	return h.Call(ctx, method, path, body, answer)
}

func (w *world) newContainer(h lab.Host, name, networkID string) (string, error) {
	var made container.CreateResponse
	err := w.on(h, http.MethodPost, "/containers/create?name="+name, container.CreateRequest{
		Config:           &container.Config{Image: "shoal/whoami"},
		HostConfig:       &container.HostConfig{NetworkMode: container.NetworkMode(networkID)},
		NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{networkID: {Aliases: []string{name + "-alias"}}}},
	}, &made)
	return made.ID, err
}

// runContainer starts a container and removes it when the test is over.
func (w *world) runContainer(h lab.Host, name, networkID string) container.InspectResponse {
	w.Helper()
	id, err := w.newContainer(h, name, networkID)
	w.must(err)
	w.Cleanup(func() { _ = w.on(h, http.MethodDelete, "/containers/"+id+"?force=1", nil, nil) }) // it may be gone
	w.must(w.on(h, http.MethodPost, "/containers/"+id+"/start", nil, nil))
	c, err := w.containerOn(h, id)
	w.must(err)
	return c
}

func (w *world) containerOn(h lab.Host, id string) (c container.InspectResponse, err error) {
	return c, w.on(h, http.MethodGet, "/containers/"+id+"/json", nil, &c)
}

// asTask lets a container be looked into as a task is.
func asTask(c container.InspectResponse) swarm.Task {
	t := swarm.Task{ID: c.ID}
	t.Status.ContainerStatus = &swarm.ContainerStatus{ContainerID: c.ID, PID: c.State.Pid}
	return t
}

// reachesService: the name gives the virtual address, and behind it every task.
func (w *world) reachesService(box container.InspectResponse, tasks []swarm.Task) {
	w.Helper()
	w.eventually(20*time.Second, "the container reaches the service", func() error {
		if _, err := inside(asTask(box), "lookup", "att-web"); err != nil {
			return err
		}
		out, err := inside(asTask(box), "get", "-n", strconv.Itoa(6*len(tasks)), "http://att-web")
		if err != nil {
			return err
		}
		for _, name := range slots("att-web", tasks) {
			if !strings.Contains(out, name) {
				return fmt.Errorf("%s never answered", name)
			}
		}
		return nil
	})
}

// reachedFrom: every task finds the container by name, alias and short id.
func (w *world) reachedFrom(tasks []swarm.Task, box container.InspectResponse) {
	w.Helper()
	for _, task := range tasks {
		for _, name := range []string{"att-box", "att-box-alias", box.ID[:12]} {
			w.eventually(20*time.Second, "a task reaches "+name, func() error {
				out, err := inside(task, "get", "http://"+name)
				if err == nil && !strings.Contains(out, "local=") {
					err = errors.New(out)
				}
				return err
			})
		}
	}
}

// listed: the network shows the container.
func (w *world) listed(h lab.Host, box container.InspectResponse, id string) {
	w.Helper()
	w.eventually(10*time.Second, "the network shows the container", func() error {
		var n network.Inspect
		if err := w.on(h, http.MethodGet, "/networks/"+id, nil, &n); err != nil {
			return err
		}
		shown := n.Containers[box.ID]
		if shown.Name != "att-box" || shown.IPv4Address.Addr() != box.NetworkSettings.Networks["att-open"].IPAddress {
			return fmt.Errorf("%+v in %+v", shown, n.Containers)
		}
		return nil
	})
}

// leavesNothing: an end frees address and name, and the network with them.
func (w *world) leavesNothing(h lab.Host, box container.InspectResponse, id string) {
	w.Helper()
	address := box.NetworkSettings.Networks["att-open"].IPAddress
	w.must(w.on(h, http.MethodPost, "/containers/"+box.ID+"/stop", nil, nil))
	w.eventually(30*time.Second, "the address is free", func() error {
		var n network.Inspect
		if err := w.on(h, http.MethodGet, "/networks/"+id, nil, &n); err != nil {
			return err
		}
		if shown, still := n.Containers[box.ID]; still {
			return fmt.Errorf("still there: %+v", shown)
		}
		tasks, err := get[[]swarm.Task](w, "/tasks", map[string][]string{"runtime": {"attachment"}})
		if err == nil && slices.ContainsFunc(tasks, func(t swarm.Task) bool { return t.Name == "att-box" }) {
			err = fmt.Errorf("the task that had %s is still there", address)
		}
		return err
	})
	w.must(w.on(h, http.MethodDelete, "/containers/"+box.ID, nil, nil))
	if c, err := w.containerOn(h, box.ID); err == nil {
		w.Errorf("the container is still there: %+v", c.State)
	}
}
