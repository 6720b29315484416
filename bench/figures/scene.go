package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/load"
	"shoal/overlay/netns"
)

// The names of what the figures under load make in the lab, and its published port.
const (
	sceneNet    = "figures-net"
	sceneWeb    = "figures-web"
	sceneClient = "figures-client"
	scenePort   = 18400
)

// scenePatience bounds every wait for the cluster.
const scenePatience = 60 * time.Second

// scene is a service under load: asked through every host from outside, and from
// a task on every host at its virtual IP.
type scene struct {
	l      *lab.Lab
	vip    string
	prober *load.Prober

	mu sync.Mutex
	// pids are the processes of the client tasks by the host's name.
	pids map[string]int
}

// outside and inside name the ways to the service by a host.
func outside(host string) string { return "through " + host }
func inside(host string) string  { return "from a task on " + host }

// open makes the network, the service of some replicas and a client on every host.
func open(ctx context.Context, l *lab.Lab, replicas uint64, change func(*swarm.ServiceSpec)) (*scene, error) {
	s := &scene{l: l, pids: map[string]int{}}
	if err := s.call(ctx, http.MethodPost, "/networks/create", network.CreateRequest{Name: sceneNet, Driver: "overlay"}, nil); err != nil {
		return nil, err
	}
	grace, delay := 10*time.Second, time.Second
	template := swarm.TaskSpec{
		ContainerSpec: &swarm.ContainerSpec{Image: "shoal/whoami:latest", StopGracePeriod: &grace},
		RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny, Delay: &delay},
		Networks:      []swarm.NetworkAttachmentConfig{{Target: sceneNet}},
	}
	web := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: sceneWeb}, TaskTemplate: template,
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		EndpointSpec: &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: scenePort}}},
	}
	if change != nil {
		change(&web)
	}
	client := swarm.ServiceSpec{Annotations: swarm.Annotations{Name: sceneClient}, TaskTemplate: template, Mode: swarm.ServiceMode{Global: &swarm.GlobalService{}}}
	for _, spec := range []swarm.ServiceSpec{web, client} {
		if err := s.call(ctx, http.MethodPost, "/services/create", spec, nil); err != nil {
			return s, err
		}
	}
	if _, err := s.running(ctx, sceneWeb, int(replicas)); err != nil {
		return s, err
	}
	if err := s.lookUp(ctx); err != nil {
		return s, err
	}
	return s, s.learnClients(ctx, len(l.Hosts()))
}

// close takes away what open made; the networks go once no task is left on them.
func (s *scene) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), scenePatience)
	defer cancel()
	for _, name := range []string{sceneWeb, sceneClient} {
		if err := s.call(ctx, http.MethodDelete, "/services/"+name, nil, nil); err != nil {
			fmt.Fprintln(os.Stderr, "figures: the service is left behind:", err)
		}
	}
	err := await(ctx, "the network's removal", func() error {
		return s.call(ctx, http.MethodDelete, "/networks/"+sceneNet, nil, nil)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "figures: the network is left behind:", err)
	}
}

// call asks the first manager that answers.
func (s *scene) call(ctx context.Context, method, path string, body, answer any) (err error) {
	for _, h := range s.l.Hosts()[:lab.Managers] {
		if _, up := s.l.DaemonPid(h); !up {
			continue
		}
		if err = h.Call(ctx, method, path, body, answer); err == nil {
			return nil
		}
	}
	return err
}

// lookUp learns the service's virtual IP.
func (s *scene) lookUp(ctx context.Context) error {
	var found swarm.Service
	if err := s.call(ctx, http.MethodGet, "/services/"+sceneWeb, nil, &found); err != nil {
		return err
	}
	tasks, err := s.tasks(ctx, sceneWeb)
	if err != nil {
		return err
	}
	for _, v := range found.Endpoint.VirtualIPs {
		for _, a := range tasks[0].NetworksAttachments {
			if a.Network.ID == v.NetworkID && a.Network.Spec.Name == sceneNet && v.Addr.Addr().Is4() {
				s.vip = v.Addr.Addr().String()
				return nil
			}
		}
	}
	return errors.New(sceneWeb + " has no virtual IP on " + sceneNet)
}

// tasks are the tasks of a service that should run.
func (s *scene) tasks(ctx context.Context, service string) ([]swarm.Task, error) {
	return s.list(ctx, map[string][]string{"service": {service}, "desired-state": {"running"}})
}

func (s *scene) list(ctx context.Context, filters map[string][]string) ([]swarm.Task, error) {
	filter, err := json.Marshal(filters)
	if err != nil {
		return nil, fmt.Errorf("encode a filter: %w", err)
	}
	var list []swarm.Task
	if err := s.call(ctx, http.MethodGet, "/tasks?filters="+url.QueryEscape(string(filter)), nil, &list); err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b swarm.Task) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// running waits until exactly n tasks of a service should run and do.
func (s *scene) running(ctx context.Context, service string, n int) (list []swarm.Task, err error) {
	err = await(ctx, fmt.Sprintf("%d tasks of %s", n, service), func() error {
		if list, err = s.tasks(ctx, service); err != nil {
			return err
		}
		up := 0
		for _, t := range list {
			if t.Status.State == swarm.TaskStateRunning && pid(t) > 1 {
				up++
			}
		}
		if up != n || len(list) != n {
			return fmt.Errorf("%d of %d run", up, len(list))
		}
		return nil
	})
	return list, err
}

func pid(t swarm.Task) int {
	if t.Status.ContainerStatus == nil {
		return 0
	}
	return t.Status.ContainerStatus.PID
}

// learnClients waits until n clients run, and remembers their processes.
func (s *scene) learnClients(ctx context.Context, n int) error {
	var clients []swarm.Task
	err := await(ctx, "clients that are really there", func() (err error) {
		if clients, err = s.running(ctx, sceneClient, n); err != nil {
			return err
		}
		for _, t := range clients { // a host that came back at once has not told yet that its tasks are gone
			if !netns.Exists(fmt.Sprintf("/proc/%d/ns/net", pid(t))) {
				return fmt.Errorf("task %s is gone", t.ID)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	names, err := s.hostnames(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.pids)
	for _, t := range clients {
		s.pids[names[t.NodeID]] = pid(t)
	}
	return nil
}

// hostnames are the hosts' names by the ids of their nodes.
func (s *scene) hostnames(ctx context.Context) (map[string]string, error) {
	var nodes []swarm.Node
	if err := s.call(ctx, http.MethodGet, "/nodes", nil, &nodes); err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, n := range nodes {
		names[n.ID] = n.Description.Hostname
	}
	return names, nil
}

// dialer connects from the client task on a host, whichever process that is now.
func (s *scene) dialer(host string) load.Dialer {
	return func(ctx context.Context, kind, address string) (net.Conn, error) {
		s.mu.Lock()
		client := s.pids[host]
		s.mu.Unlock()
		return netns.Dial(ctx, fmt.Sprintf("/proc/%d/ns/net", client), kind, address)
	}
}

// routes are the ways to the service over every host, asked by one of the ways of
// package load; what says which, in the routes' names.
func (s *scene) routes(what string, how func(string, load.Dialer) load.Ask) (routes []*load.Route) {
	for _, h := range s.l.Hosts() {
		routes = append(routes,
			&load.Route{Name: outside(h.Name) + what, Ask: how(net.JoinHostPort(h.Address.String(), strconv.Itoa(scenePort)), nil)},
			&load.Route{Name: inside(h.Name) + what, Ask: how(net.JoinHostPort(s.vip, "80"), s.dialer(h.Name))})
	}
	return routes
}

// ask starts the load: so many requests a second along these routes. The function
// returned ends it.
func (s *scene) ask(ctx context.Context, rate int, routes []*load.Route) (end func()) {
	s.prober = load.New(time.Second/time.Duration(rate), routes...)
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); s.prober.Run(ctx) }()
	return func() { stop(); <-done }
}

// await asks check until it is content.
func await(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, scenePatience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if !sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("wait for %s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}
