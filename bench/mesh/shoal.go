package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/control/api"
)

// Shoal's own hosts: a lab of two, with a client on their lan.
const (
	labDir    = "/run/shoal-bench"
	labPrefix = "sbench"
	labSubnet = "10.96.0.0/24"
	labClient = "10.96.0.9"

	shoalNear, shoalFar = 8301, 8302
	shoalNetwork        = "bench"
	sampleImage         = "shoal/whoami:latest"
)

// shoal is Shoal's contender: services of the sample image, in whose tasks'
// namespaces the servers and clients of the comparison run, as they do everywhere
// else. The containers themselves have nothing to do.
type shoal struct {
	lab  *lab.Lab
	site *site
	net  string
}

// service is one that the comparison needs.
type service struct {
	name string
	host string
	port uint32 // published
	role string
}

// Services: those that are reached by virtual IP publish nothing.
var shoalServices = []service{
	{name: "client", host: "h1", role: roleAgent},
	{name: "near", host: "h1", role: roleServe},
	{name: "far", host: "h2", role: roleServe},
	{name: "near-port", host: "h1", port: shoalNear, role: roleServe},
	{name: "far-port", host: "h2", port: shoalFar, role: roleServe},
}

// shoalUp brings the hosts up with the services on them.
func shoalUp(s *site, o options) (*shoal, error) {
	if old, err := lab.Open(labDir); err == nil { // an earlier run was killed
		if err := old.Down(s.ctx); err != nil {
			return nil, err
		}
	}
	l, err := lab.New(lab.Config{
		Hosts: 2, Dir: labDir, Prefix: labPrefix, Subnet: labSubnet, Patience: o.patience,
		Shoald: filepath.Join(o.bin, "shoald"), Images: []string{filepath.Join(o.bin, "whoami.tar")},
		DaemonFlags: daemonFlags(o),
	})
	if err != nil {
		return nil, err
	}
	if err := l.Up(s.ctx); err != nil {
		return nil, err
	}
	h := &shoal{lab: l, site: s}
	return h, h.fill(o.patience)
}

// daemonFlags slow the clocks of managers and gossip down where the machine is
// so slow that a minute is not enough, and choose the balancer.
func daemonFlags(o options) []string {
	list := []string{"--balancer", o.balancer}
	if o.patience > time.Minute {
		list = append(list, "--gossip-scale", "5", "--raft-election-timeout", "5s")
	}
	return list
}

func (h *shoal) fill(patience time.Duration) error {
	s := h.site
	s.namespace("sout")
	s.bridges(filepath.Join(netnsDir, labPrefix+"-lan"))
	s.run("ip", "-n", labPrefix+"-lan", "link", "add", "out", "type", "veth", "peer", "name", "eth0", "netns", prefix+"sout")
	s.run("ip", "-n", labPrefix+"-lan", "link", "set", "out", "master", "br0", "up")
	s.ip("sout", "addr add "+labClient+"/24 dev eth0\nlink set eth0 up\n")
	s.client("sout", path("sout"))
	if s.err != nil {
		return s.err
	}
	var made struct{ Id string }
	if err := h.call(http.MethodPost, "/networks/create", network.CreateRequest{Name: shoalNetwork, Driver: "overlay"}, &made); err != nil {
		return err
	}
	h.net = made.Id
	for _, one := range shoalServices {
		if err := h.call(http.MethodPost, "/services/create", h.define(one), nil); err != nil {
			return err
		}
	}
	for _, one := range shoalServices {
		if err := h.occupy(one, time.Now().Add(patience)); err != nil {
			return err
		}
	}
	return h.settle()
}

// settle does for the hosts and overlays what is done for every namespace.
func (h *shoal) settle() error {
	for _, host := range h.lab.Hosts() {
		h.site.settle(filepath.Join(netnsDir, host.Namespace))
		overlays, err := filepath.Glob(filepath.Join(labDir, host.Name, "exec", "netns", "net-*"))
		if err != nil {
			return fmt.Errorf("list the overlays of %s: %w", host.Name, err)
		}
		for _, at := range overlays {
			h.site.settle(at)
		}
	}
	return h.site.err
}

func (h *shoal) call(method, path string, body, answer any) error {
	return h.lab.Hosts()[0].Call(h.site.ctx, method, path, body, answer)
}

func (h *shoal) define(one service) swarm.ServiceSpec {
	replicas := uint64(1)
	spec := swarm.ServiceSpec{
		// The servers come later than the tasks, at whatever time.
		Annotations: swarm.Annotations{Name: one.name, Labels: map[string]string{api.LabelReady: "started"}},
		Mode:        swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: sampleImage},
			Placement:     &swarm.Placement{Constraints: []string{"node.hostname==" + one.host}},
		},
	}
	if one.port == 0 {
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: shoalNetwork}}
		return spec
	}
	spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{
		Protocol: network.TCP, TargetPort: portServer, PublishedPort: one.port, PublishMode: swarm.PortConfigPublishModeIngress,
	}}}
	return spec
}

// errNoTask is a service whose task does not run.
var errNoTask = errors.New("no task runs")

// task waits for a service's task, and for its namespace.
func (h *shoal) task(one service, end time.Time) (swarm.Task, string, error) {
	filter := url.QueryEscape(`{"service":{"` + one.name + `":true}}`)
	for {
		var tasks []swarm.Task
		err := h.call(http.MethodGet, "/tasks?filters="+filter, nil, &tasks)
		for _, task := range tasks {
			at := filepath.Join(labDir, one.host, "exec", "netns", "task-"+task.ID)
			_, missing := os.Stat(at)
			status := task.Status.ContainerStatus
			if missing == nil && status != nil && status.PID > 0 && task.DesiredState == swarm.TaskStateRunning {
				return task, at, nil
			}
			err = fmt.Errorf("%w: %s: %s %s", errNoTask, one.name, task.Status.State, task.Status.Err)
		}
		if time.Now().After(end) {
			return swarm.Task{}, "", errors.Join(err, fmt.Errorf("service %s: %w in time", one.name, errNoTask))
		}
		select {
		case <-h.site.ctx.Done():
			return swarm.Task{}, "", h.site.ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// occupy starts the server or client in the namespace of a service's task.
func (h *shoal) occupy(one service, end time.Time) error {
	_, at, err := h.task(one, end)
	if err != nil {
		return err
	}
	name := "shoal/" + one.name
	h.site.settle(at)
	if one.role == roleAgent {
		h.site.client(name, at)
	} else {
		h.site.server(name, at)
	}
	return h.site.err
}

// virtual is a service's virtual IP, own its task's address.
func (h *shoal) virtual(name string) (netip.Addr, error) {
	var s swarm.Service
	if err := h.call(http.MethodGet, "/services/"+name, nil, &s); err != nil {
		return netip.Addr{}, err
	}
	for _, vip := range s.Endpoint.VirtualIPs {
		if vip.NetworkID == h.net {
			return vip.Addr.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("service %s has no virtual IP on %s", name, shoalNetwork)
}

func (h *shoal) own(one service) (netip.Addr, error) {
	task, _, err := h.task(one, time.Now())
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range task.NetworksAttachments {
		if a.Network.ID == h.net && len(a.Addresses) > 0 {
			return a.Addresses[0].Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the task of %s has no address on %s", one.name, shoalNetwork)
}

// published is a published port of the host that clients enter by.
func (h *shoal) published(port int) netip.AddrPort {
	at := net.JoinHostPort(h.lab.Hosts()[0].Address.String(), strconv.Itoa(port))
	return netip.MustParseAddrPort(at)
}

func (h *shoal) down(ctx context.Context) error {
	if h == nil {
		return nil
	}
	return h.lab.Down(ctx)
}
