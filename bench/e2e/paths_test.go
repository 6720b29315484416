//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
	"shoal/overlay/netns"
)

// spot is somewhere to ask from: a network namespace.
type spot struct{ name, namespace string }

func hostSpot(h lab.Host) spot { return spot{"the host " + h.Name, "/run/netns/" + h.Namespace} }

func taskSpot(name string, t swarm.Task) spot {
	return spot{name, fmt.Sprintf("/proc/%d/ns/net", pid(t))}
}

// askFromSpot asks an address from a namespace, on a connection of its own.
func askFromSpot(s spot, protocol, address string) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), labtest.Within(askPatience))
	defer cancel()
	conn, err := netns.Dial(ctx, s.namespace, protocol, address)
	if err != nil {
		return nil, err
	}
	c := newCaller(conn, protocol)
	defer c.Close()
	return c.ask()
}

// reaches waits until a spot gets an answer of the service.
func (w *world) reaches(s spot, protocol, address, service string) (r reply) {
	w.Helper()
	w.eventually(15*time.Second, s.name+" reaches "+service+" at "+address, func() (err error) {
		r, err = askFromSpot(s, protocol, address)
		if err == nil && !strings.HasPrefix(r["task"], service+".") {
			err = fmt.Errorf("%s answered", r["task"])
		}
		return err
	})
	return r
}

// refusedFrom checks that a spot gets no answer.
func (w *world) refusedFrom(s spot, protocol, address string) {
	w.Helper()
	if r, err := askFromSpot(s, protocol, address); err == nil {
		w.Errorf("%s reaches %s at %s", s.name, r["task"], address)
	}
}

// publishedOnHost publishes a port of the hosts that run a task.
func publishedOnHost(port uint32, protocol network.IPProtocol) option {
	return func(s *swarm.ServiceSpec) {
		s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP, Ports: []swarm.PortConfig{{
			Protocol: protocol, TargetPort: 80, PublishedPort: port, PublishMode: swarm.PortConfigPublishModeHost,
		}}}
	}
}

// hairpin: a published port answers on its host from the host itself, by loopback
// and by address, from tasks of the same network and of another, and from the
// task itself, in both modes.
func hairpin(w *world) {
	app, other := w.network("hair-net"), w.network("hair-other")
	near := w.start("hair-near", 1, attached(app), on("h1"))[0]
	far := w.start("hair-far", 1, attached(other), on("h1"))[0]
	h := w.host(1)
	for i, publish := range []func(uint32, network.IPProtocol) option{published, publishedOnHost} {
		name, port := fmt.Sprintf("hair-web%d", i), uint32(8212+i)
		own := w.start(name, 1, publish(port, network.TCP), attached(app), on("h1"))[0]
		at := net.JoinHostPort(h.Address.String(), strconv.Itoa(int(port)))
		w.reaches(hostSpot(h), "tcp", "127.0.0.1:"+strconv.Itoa(int(port)), name)
		for _, s := range []spot{hostSpot(h), taskSpot("a task of the network", near), taskSpot("a task of another network", far), taskSpot("the task itself", own)} {
			w.reaches(s, "tcp", at, name)
		}
	}
}

// hostMode: a port in host mode answers where its tasks are and nowhere else, the
// task sees its client, and two tasks with one such port are never on one host.
func hostMode(w *world) {
	w.start("host-web", 1, publishedOnHost(8214, network.TCP), on("h2"))
	w.answered(askKept, w.lab.Hosts()[1:2], 8214, 5, "node", []string{"h2"})
	for _, h := range []lab.Host{w.host(1), w.host(3)} {
		if r, err := ask(h, 8214); !errors.Is(err, syscall.ECONNREFUSED) {
			w.Errorf("%s, which runs no task, answers %v, %v", h.Name, r, err)
		}
	}
	id := w.create("host-second", 1, publishedOnHost(8214, network.TCP), on("h2"))
	w.eventually(15*time.Second, "the second task waits and says why", func() error {
		tasks, err := w.tasks(map[string][]string{"service": {id}})
		switch {
		case err != nil:
			return err
		case len(tasks) != 1 || tasks[0].Status.State != swarm.TaskStatePending || !strings.Contains(tasks[0].Status.Err, "host-mode port"):
			return fmt.Errorf("%+v", tasks)
		}
		return nil
	})
	free := w.start("host-free", 1, publishedOnHost(0, network.TCP), on("h3"))[0]
	ports := free.Status.PortStatus.Ports
	if len(ports) != 1 || ports[0].PublishedPort == 0 {
		w.Fatalf("the port that was chosen is not told: %+v", ports)
	}
	w.answered(ask, w.lab.Hosts()[2:], int(ports[0].PublishedPort), 3, "node", []string{"h3"})
}

// isolation: the networks that Shoal adds to tasks by itself, the mesh's and the
// way out, join nobody.
func isolation(w *world) {
	victims := w.startGlobal("apart-web", published(8215, network.TCP))
	thief := w.start("apart-thief", 1, published(8216, network.TCP), on("h1"))[0]
	from, own := taskSpot("a task of another service", thief), w.ownAddresses(thief)
	for _, victim := range victims {
		host := w.hostname(victim.NodeID)
		for _, address := range w.ownAddresses(victim) {
			// Each node gives addresses on its way out by itself: the thief may have the same.
			if address.Is4() && !address.IsLoopback() && !address.IsLinkLocalUnicast() && !slices.Contains(own, address) {
				w.Logf("the task on %s has %s", host, address)
				w.refusedFrom(from, "tcp", netip.AddrPortFrom(address, 80).String())
			}
		}
	}
	w.refusedFrom(from, "tcp", "169.254.128.2:8215") // the inner end of the mesh
	service, err := w.service("apart-web")
	w.must(err)
	for _, v := range service.Endpoint.VirtualIPs {
		w.refusedFrom(from, "tcp", netip.AddrPortFrom(v.Addr.Addr(), 80).String())
	}
	w.answered(ask, w.lab.Hosts(), 8215, 10, "version", []string{"v1"})
}

// ownAddresses are those that a task has on its links.
func (w *world) ownAddresses(task swarm.Task) (out []netip.Addr) {
	w.Helper()
	w.must(netns.Do(fmt.Sprintf("/proc/%d/ns/net", pid(task)), func() error {
		list, err := net.InterfaceAddrs()
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				out = append(out, p.Addr())
			}
		}
		return err
	}))
	return out
}

// nobodyListens: where no task listens on a published UDP port, its client is told
// so by ICMP, whichever host it asked.
func nobodyListens(w *world) {
	deaf := func(s *swarm.ServiceSpec) {
		published(8217, network.UDP)(s)
		s.EndpointSpec.Ports[0].TargetPort = 81
	}
	w.start("deaf", 1, deaf, on("h2"))
	for _, h := range w.lab.Hosts() {
		w.eventually(15*time.Second, "the client of "+h.Name+" is told that nobody listens", func() error {
			if _, err := askUDP(h, 8217); !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("%v", err)
			}
			return nil
		})
	}
}

// endpointMode: a service changes from vip to dnsrr and back, and joins and leaves
// a network, by updates alone.
func endpointMode(w *world) {
	app, late := w.network("mode-net"), w.network("mode-late")
	w.start("mode-web", 2, attached(app))
	client := w.start("mode-client", 1, attached(app), attached(late))[0]
	w.updated("mode-web", roundRobin)
	w.virtuals("mode-web")
	w.resolves(client, "mode-web", func() []string { return w.taskAddresses("mode-web", app) })
	w.updated("mode-web", func(s *swarm.ServiceSpec) { s.EndpointSpec = nil }, attached(late))
	service := w.virtuals("mode-web", app, late)
	w.reaches(taskSpot("a client on the network that was joined", client), "tcp", virtual(service, late)+":80", "mode-web")
	w.updated("mode-web", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Networks = slices.DeleteFunc(s.TaskTemplate.Networks, func(n swarm.NetworkAttachmentConfig) bool { return n.Target == late })
	})
	service = w.virtuals("mode-web", app)
	w.resolves(client, "mode-web", func() []string { return []string{virtual(service, app)} })
}

// virtuals waits until a service has virtual IPs on these networks and no other.
func (w *world) virtuals(name string, networks ...string) (s swarm.Service) {
	w.Helper()
	w.eventually(15*time.Second, "the virtual IPs of "+name, func() (err error) {
		s, err = w.service(name)
		have := map[string]bool{}
		for _, v := range s.Endpoint.VirtualIPs {
			have[v.NetworkID] = true
		}
		for _, id := range networks {
			if !have[id] {
				return fmt.Errorf("none on network %s: %v", id, s.Endpoint.VirtualIPs)
			}
		}
		if err == nil && len(have) != len(networks) {
			err = fmt.Errorf("on %d networks: %v", len(have), s.Endpoint.VirtualIPs)
		}
		return err
	})
	return s
}

// updated changes a service.
func (w *world) updated(name string, changes ...option) {
	w.Helper()
	w.eventually(10*time.Second, "update "+name, func() error {
		s, err := w.service(name)
		if err != nil {
			return err
		}
		for _, change := range changes {
			change(&s.Spec)
		}
		return w.call(http.MethodPost, "/services/"+s.ID+"/update?version="+strconv.FormatUint(s.Version.Index, 10), s.Spec, nil)
	})
}

// taskAddresses are those of the tasks of a service that run, in a network.
func (w *world) taskAddresses(service, networkID string) (out []string) {
	tasks, err := w.tasks(map[string][]string{"service": {service}, "desired-state": {"running"}})
	w.must(err)
	for _, task := range tasks {
		out = append(out, addresses(task, networkID)...)
	}
	return out
}

// resolves waits until a name gives these addresses inside a task.
func (w *world) resolves(client swarm.Task, name string, want func() []string) {
	w.Helper()
	w.eventually(30*time.Second, name+" resolves", func() error {
		out, err := inside(client, "lookup", name)
		got, wanted := strings.Fields(out), want()
		slices.Sort(got)
		slices.Sort(wanted)
		if err == nil && !slices.Equal(got, wanted) {
			err = fmt.Errorf("%v, not %v", got, wanted)
		}
		return err
	})
}
