//go:build lab

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/dataplane/trace"
	"shoal/overlay/netns"
)

// hostPort is where the tasks of hostNetwork listen, on their hosts.
const hostPort = 8280

// hostNetwork: tasks in their nodes' own networks answer at the nodes' addresses and
// nowhere else, outlive the daemon, are updated and go like others.
func hostNetwork(w *world) {
	app := w.network("host-app")
	web := w.start("host-net-web", 2, published(8281, network.TCP), attached(app))
	tasks := w.startGlobal("host-agent", onHostNetwork)
	w.answersOnHosts(tasks)
	for _, task := range tasks {
		w.livesOnHost(task)
		w.reachesMesh(task, slots("host-net-web", web))
	}
	w.hasNoAddress("host-agent", tasks)
	w.hostRefusals(app)

	victim := w.host(2)
	w.must(w.lab.KillDaemon(w.Context(), victim))
	w.must(w.lab.Heal(w.Context()))
	w.same("host-agent", ids(tasks))
	w.answersOnHosts(tasks)

	w.change("host-agent", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Env = append(s.TaskTemplate.ContainerSpec.Env, "NEW=1")
		s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, Monitor: time.Millisecond, Order: swarm.UpdateOrderStopFirst}
	})
	w.answersOnHosts(w.replaced("host-agent", tasks))
	w.undrifted()
	w.must(w.call(http.MethodDelete, "/services/host-agent", nil, nil))
	w.refused(hostPort)
}

// onHostNetwork has the service's tasks listen in their nodes' own networks. The
// port is named, so that a task counts once it listens there.
func onHostNetwork(s *swarm.ServiceSpec) {
	attached(network.NetworkHost)(s)
	s.TaskTemplate.ContainerSpec.Env = []string{fmt.Sprintf("PORT=%d", hostPort)}
	s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{
		{Protocol: network.TCP, TargetPort: hostPort, PublishedPort: hostPort, PublishMode: swarm.PortConfigPublishModeHost},
	}}
}

// answersOnHosts checks that each host's own task answers there, and no other.
func (w *world) answersOnHosts(tasks []swarm.Task) {
	w.Helper()
	for _, task := range tasks {
		w.answered(ask, []lab.Host{w.hostOf(task)}, hostPort, 3, "task", []string{"host-agent." + task.NodeID})
	}
}

// hostOf is the host that a task runs on.
func (w *world) hostOf(task swarm.Task) lab.Host {
	w.Helper()
	name := w.hostname(task.NodeID)
	i := slices.IndexFunc(w.lab.Hosts(), func(h lab.Host) bool { return h.Name == name })
	if i < 0 {
		w.Fatalf("task %s runs on %q", task.ID, name)
	}
	return w.lab.Hosts()[i]
}

// livesOnHost checks that the task's process is in the network namespace of its host,
// and that its host's views know what that means.
func (w *world) livesOnHost(task swarm.Task) {
	w.Helper()
	h := w.hostOf(task)
	own, there := netns.Identify(fmt.Sprintf("/proc/%d/ns/net", pid(task)))
	host, known := netns.Identify(filepath.Join("/run/netns", h.Namespace))
	if !there || !known || own != host {
		w.Errorf("the task on %s is in namespace %v, the host's is %v", h.Name, own, host)
	}
	r := w.trace(w.host(1), "host-agent."+task.NodeID, target(w.host(3), 8281), "tcp", false)
	if r.Node != h.Name || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "has no network namespace of its own") ||
		len(r.Paths) == 0 || r.Paths[0].Verdict != trace.Delivered {
		w.Errorf("its packets are traced as %+v", r)
	}
	var c struct{ HostConfig struct{ NetworkMode string } }
	w.must(h.Call(w.Context(), http.MethodGet, "/containers/"+task.Status.ContainerStatus.ContainerID+"/json", nil, &c))
	if c.HostConfig.NetworkMode != network.NetworkHost {
		w.Errorf("its container is shown in mode %q", c.HostConfig.NetworkMode)
	}
}

// reachesMesh checks that the task reaches published ports as its host does: on this
// host and on the others.
func (w *world) reachesMesh(task swarm.Task, want []string) {
	w.Helper()
	for _, h := range w.lab.Hosts() {
		w.eventually(15*time.Second, "a published port of "+h.Name+" answers", func() error {
			out, err := inside(task, "get", "http://"+net.JoinHostPort(h.Address.String(), strconv.Itoa(8281)))
			if err != nil {
				return err
			}
			r, err := parse(out)
			if err == nil && !slices.Contains(want, r["task"]) {
				err = fmt.Errorf("%s answers", r["task"])
			}
			return err
		})
	}
}

// hasNoAddress checks that nobody is given an address of such a service.
func (w *world) hasNoAddress(name string, tasks []swarm.Task) {
	w.Helper()
	s, err := w.service(name)
	w.must(err)
	if len(s.Endpoint.VirtualIPs) != 0 {
		w.Errorf("it has the virtual IPs %v", s.Endpoint.VirtualIPs)
	}
	for _, task := range tasks {
		if at := task.NetworksAttachments; len(at) != 1 || at[0].Network.Spec.Name != network.NetworkHost || len(at[0].Addresses) != 0 {
			w.Errorf("task %s is attached to %+v", task.ID, at)
		}
	}
}

// hostRefusals are what such a service could not have.
func (w *world) hostRefusals(app string) {
	w.Helper()
	for text, options := range map[string][]option{
		"is on no other":                         {attached(network.NetworkHost), attached(app)},
		"cannot be published in ingress mode":    {attached(network.NetworkHost), published(8282, network.TCP)},
		"services on the network bridge are not": {attached(network.NetworkBridge)},
	} {
		if err := w.call(http.MethodPost, "/services/create", define("host-no", 1, options...), nil); err == nil || !strings.Contains(err.Error(), text) {
			w.Errorf("want a refusal with %q, got %v", text, err)
		}
	}
}

// replaced waits until the tasks of a service that runs everywhere are all others.
func (w *world) replaced(name string, before []swarm.Task) (now []swarm.Task) {
	w.Helper()
	old := ids(before)
	w.eventually(60*time.Second, "new tasks of "+name+" run", func() error {
		now = w.running(name, len(before), 30*time.Second)
		for _, task := range now {
			if _, still := old[task.ID]; still {
				return fmt.Errorf("task %s still runs", task.ID)
			}
		}
		return nil
	})
	return now
}
