//go:build lab

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
)

// encode writes filters as the API wants them: {"label":{"a=b":true}}.
func encode(filters map[string][]string) string {
	sets := map[string]map[string]bool{}
	for key, values := range filters {
		sets[key] = map[string]bool{}
		for _, v := range values {
			sets[key][v] = true
		}
	}
	raw, err := json.Marshal(sets)
	if err != nil {
		panic(err) // maps of strings always encode
	}
	return string(raw)
}

// option changes the specification of a service.
type option func(*swarm.ServiceSpec)

// published publishes a port of the routing mesh.
func published(port uint32, protocol network.IPProtocol) option {
	return func(s *swarm.ServiceSpec) {
		s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP, Ports: []swarm.PortConfig{{
			Protocol: protocol, TargetPort: 80, PublishedPort: port, PublishMode: swarm.PortConfigPublishModeIngress,
		}}}
	}
}

// on puts all tasks on one host.
func on(host string) option {
	return func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname==" + host}}
	}
}

// attached attaches the tasks to a network.
func attached(network string, aliases ...string) option {
	return func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Networks = append(s.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: network, Aliases: aliases})
	}
}

// roundRobin gives the service no virtual IP.
func roundRobin(s *swarm.ServiceSpec) {
	s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
}

// global runs one task on every host.
func global(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} }

// define makes the specification of a service of the sample image.
func define(name string, replicas uint64, options ...option) swarm.ServiceSpec {
	grace, delay := 10*time.Second, time.Second
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: name},
		Mode:        swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: "shoal/whoami:latest", StopGracePeriod: &grace},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny, Delay: &delay},
		},
	}
	for _, change := range options {
		change(&spec)
	}
	return spec
}

// create creates a service of the sample image, to be removed after the test.
func (w *world) create(name string, replicas uint64, options ...option) string {
	w.Helper()
	var made struct{ ID string }
	w.must(w.call(http.MethodPost, "/services/create", define(name, replicas, options...), &made))
	return made.ID
}

// start creates a service and waits until its tasks run.
func (w *world) start(name string, replicas uint64, options ...option) []swarm.Task {
	w.Helper()
	w.create(name, replicas, options...)
	return w.running(name, int(replicas), 30*time.Second)
}

// network creates an overlay network, to be removed after the test.
func (w *world) network(name string) string {
	w.Helper()
	var made struct{ Id string }
	w.must(w.call(http.MethodPost, "/networks/create", network.CreateRequest{Name: name, Driver: "overlay"}, &made))
	w.networks = append(w.networks, made.Id)
	return made.Id
}

// service reads a service.
func (w *world) service(name string) (swarm.Service, error) {
	var s swarm.Service
	err := w.call(http.MethodGet, "/services/"+name, nil, &s)
	return s, err
}

// scale asks for another number of tasks.
func (w *world) scale(name string, replicas uint64) error {
	s, err := w.service(name)
	if err != nil {
		return err
	}
	s.Spec.Mode.Replicated.Replicas = &replicas
	return w.call(http.MethodPost, "/services/"+s.ID+"/update?version="+strconv.FormatUint(s.Version.Index, 10), s.Spec, nil)
}

// tasks lists tasks.
func (w *world) tasks(filters map[string][]string) ([]swarm.Task, error) {
	return get[[]swarm.Task](w, "/tasks", filters)
}

// running waits until a service has exactly n tasks that run and shall.
func (w *world) running(name string, n int, within time.Duration) (running []swarm.Task) {
	w.Helper()
	w.eventually(within, fmt.Sprintf("%d tasks of %s run", n, name), func() error {
		tasks, err := w.tasks(map[string][]string{"service": {name}, "desired-state": {"running"}})
		if err != nil {
			return err
		}
		running = running[:0]
		var others []string
		for _, task := range tasks {
			if task.Status.State != swarm.TaskStateRunning {
				others = append(others, fmt.Sprintf("%s.%d %s %s", name, task.Slot, task.Status.State, task.Status.Err))
				continue
			}
			running = append(running, task)
		}
		if len(running) != n || len(others) > 0 {
			return fmt.Errorf("%d run, others: %q", len(running), others)
		}
		return nil
	})
	return running
}

// hostname is the name of the node with an id.
func (w *world) hostname(nodeID string) string {
	w.Helper()
	var node swarm.Node
	w.must(w.call(http.MethodGet, "/nodes/"+nodeID, nil, &node))
	return node.Description.Hostname
}

// ids are the ids of tasks with the processes of their containers.
func ids(tasks []swarm.Task) map[string]int {
	out := map[string]int{}
	for _, task := range tasks {
		out[task.ID] = pid(task)
	}
	return out
}

// pid is the process of a task's container.
func pid(task swarm.Task) int {
	if task.Status.ContainerStatus == nil {
		return 0
	}
	return task.Status.ContainerStatus.PID
}

// addresses are a task's addresses in a network.
func addresses(task swarm.Task, networkID string) (out []string) {
	for _, a := range task.NetworksAttachments {
		if a.Network.ID == networkID {
			for _, p := range a.Addresses {
				out = append(out, p.Addr().String())
			}
		}
	}
	return out
}
