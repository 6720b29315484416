//go:build lab

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
	"shoal/overlay/netns"
)

// six are the hosts at their IPv6 addresses.
func six(hosts []lab.Host) []lab.Host {
	out := slices.Clone(hosts)
	for i := range out {
		out[i].Address = out[i].Address6
	}
	return out
}

// network6 creates an overlay network with IPv6, with or without IPv4.
func (w *world) network6(name string, ipv4 bool) string {
	w.Helper()
	var made struct{ Id string }
	yes := true
	w.must(w.call(http.MethodPost, "/networks/create", network.CreateRequest{Name: name, Driver: "overlay", EnableIPv4: &ipv4, EnableIPv6: &yes}, &made))
	w.networks = append(w.networks, made.Id)
	return made.Id
}

// virtuals are a service's virtual IPs in a network.
func virtuals(s swarm.Service, networkID string) (out []string) {
	for _, v := range s.Endpoint.VirtualIPs {
		if v.NetworkID == networkID {
			out = append(out, v.Addr.Addr().String())
		}
	}
	return out
}

// dualStack: on a network of both families, and on one of IPv6 alone, names have
// addresses of every family that there is, virtual IPs balance over TCP and UDP and
// show the client's own address, addresses have names, and tasks reach the world.
func dualStack(w *world) {
	for name, families := range map[string]int{"dual": 2, "six": 1} {
		id := w.network6(name+"-net", families == 2)
		web := w.start(name+"-web", 3, attached(id))
		rr := w.start(name+"-rr", 2, attached(id), roundRobin)
		service, err := w.service(name + "-web")
		w.must(err)
		vips := virtuals(service, id)
		if len(vips) != families {
			w.Fatalf("%s-web has the virtual IPs %v", name, vips)
		}
		var tasks, direct []string
		for _, task := range web {
			tasks = append(tasks, addresses(task, id)...)
		}
		for _, task := range rr {
			direct = append(direct, addresses(task, id)...)
		}
		for _, client := range w.startGlobal(name+"-client", attached(id)) {
			for asked, want := range map[string][]string{name + "-web": vips, "tasks." + name + "-web": tasks, name + "-rr": direct} {
				w.eventually(10*time.Second, asked, func() error { return resolves(client, asked, want) })
			}
			w.reachesBoth(client, id, name+"-web", vips, web)
		}
	}
	w.reachesWorld()
	w.undrifted()
}

// resolves compares what a task's name server says of a name, in both families.
func resolves(client swarm.Task, name string, want []string) error {
	var got []string
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := query(client, dns.Fqdn(name), kind)
		if err != nil {
			return err
		}
		if answer.Rcode != dns.RcodeSuccess {
			return fmt.Errorf("%s of %s: %s", dns.TypeToString[kind], name, dns.RcodeToString[answer.Rcode])
		}
		for _, rr := range answer.Answer {
			fields := strings.Fields(rr.String())
			got = append(got, fields[len(fields)-1])
		}
	}
	if !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		return fmt.Errorf("%s is %v, not %v", name, got, want)
	}
	return nil
}

// reachesBoth asks each virtual IP over TCP and UDP, and each task's address for
// its name.
func (w *world) reachesBoth(client swarm.Task, networkID, service string, vips []string, tasks []swarm.Task) {
	w.Helper()
	own := addresses(client, networkID)
	for _, vip := range vips {
		at := vip
		if strings.Contains(vip, ":") {
			at = "[" + vip + "]"
		}
		w.eventually(15*time.Second, "the virtual IP "+vip+" answers with the client's own address", func() error {
			return balanced(client, at, own, slots(service, tasks))
		})
		w.eventually(15*time.Second, "UDP to the virtual IP "+vip, func() error {
			out, err := inside(client, "udp", at+":80")
			if err == nil {
				_, err = parse(out)
			}
			return err
		})
	}
	for _, task := range tasks {
		for _, addr := range addresses(task, networkID) {
			out, err := inside(client, "lookup", addr)
			if want := fmt.Sprintf("%s.%d", service, task.Slot); err != nil || !strings.HasPrefix(out, want) {
				w.Errorf("%s is called %q (%v), not %s", addr, out, err, want)
			}
		}
	}
}

// reachesWorld: what a task sends to the world over IPv6 comes from its host.
func (w *world) reachesWorld() {
	w.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(w.lab.Outside6(), 0).String())
	w.must(err)
	defer l.Close()
	task := w.start("six-world", 1, on("h2"))[0]
	c, err := netns.Dial(w.Context(), fmt.Sprintf("/proc/%d/ns/net", pid(task)), "tcp", l.Addr().String())
	w.must(err)
	defer c.Close()
	seen, err := l.Accept()
	w.must(err)
	defer seen.Close()
	if from := netip.MustParseAddrPort(seen.RemoteAddr().String()).Addr(); from != w.host(2).Address6 {
		w.Errorf("the world sees a task of h2 as %s, not as %s", from, w.host(2).Address6)
	}
}

// mesh6: published ports answer over IPv6 as they do over IPv4, in both modes.
func mesh6(w *world) {
	hosts := six(w.lab.Hosts())
	web := w.start("mesh6-web", 4, published(8241, network.TCP), func(s *swarm.ServiceSpec) {
		s.EndpointSpec.Ports = append(s.EndpointSpec.Ports,
			swarm.PortConfig{Protocol: network.UDP, TargetPort: 80, PublishedPort: 8241, PublishMode: swarm.PortConfigPublishModeIngress})
	})
	for _, how := range []question{askKept, askKeptUDP} {
		w.answered(how, hosts, 8241, 24, "task", slots("mesh6-web", web))
	}
	w.start("mesh6-host", 1, on("h2"), func(s *swarm.ServiceSpec) {
		s.EndpointSpec = &swarm.EndpointSpec{}
		for _, p := range []network.IPProtocol{network.TCP, network.UDP} {
			s.EndpointSpec.Ports = append(s.EndpointSpec.Ports,
				swarm.PortConfig{Protocol: p, TargetPort: 80, PublishedPort: 8243, PublishMode: swarm.PortConfigPublishModeHost})
		}
	})
	for _, h := range []lab.Host{w.host(2), hosts[1]} {
		for _, how := range []question{askKept, askKeptUDP} {
			w.answered(how, []lab.Host{h}, 8243, 3, "node", []string{"h2"})
		}
	}
	w.undrifted()
}

// hostWithoutIPv6: a host where an operator has switched IPv6 off says so, takes
// no part in IPv6 from and to the outside, and is otherwise as the others.
func hostWithoutIPv6(w *world) {
	h3 := w.host(3)
	sysctl := func(value string) {
		w.Helper()
		for _, links := range []string{"all", "default"} {
			w.must(h3.Command(w.Context(), "sysctl", "-qw", "net.ipv6.conf."+links+".disable_ipv6="+value).Run())
		}
	}
	restart := func() {
		w.Helper()
		w.must(w.lab.KillDaemon(w.Context(), h3))
		w.must(w.lab.Heal(w.Context()))
	}
	sysctl("1")
	defer func() {
		sysctl("0")
		w.must(h3.Command(w.Context(), "ip", "addr", "replace", h3.Address6.String()+"/64", "dev", "eth0", "nodad").Run())
		restart()
	}()
	restart()
	w.eventually(10*time.Second, "the node says what it lacks", func() error {
		nodes, err := get[[]swarm.Node](w, "/nodes", nil)
		for _, n := range nodes {
			if err == nil && strings.Contains(n.Status.Message, "disable_ipv6") != (n.Description.Hostname == h3.Name) {
				err = fmt.Errorf("%s says %q", n.Description.Hostname, n.Status.Message)
			}
		}
		return err
	})
	id := w.network6("off-net", true)
	web := w.startGlobal("off-web", published(8245, network.TCP), attached(id))
	var names []string
	for _, task := range web {
		names = append(names, "off-web."+task.NodeID)
	}
	w.answered(askKept, w.lab.Hosts(), 8245, 12, "task", names)
	w.answered(askKept, six(w.lab.Hosts()[:2]), 8245, 12, "task", names) // the task on h3 takes part
	service, err := w.service("off-web")
	w.must(err)
	for _, task := range web {
		w.eventually(15*time.Second, "tasks reach each other over IPv6", func() error {
			return balanced(task, "["+virtuals(service, id)[1]+"]", addresses(task, id), names)
		})
	}
	w.undrifted()
}

// TestUnderlayOfIPv6: hosts that have IPv6 addresses alone.
func TestUnderlayOfIPv6(t *testing.T) {
	l := labtest.Up(t, lab.Config{Dir: "/run/shoal-six", Prefix: "ssix", Subnet: "10.82.0.0/24", Hosts: 2, Underlay6: true}, "whoami.tar")
	w := &world{T: t, lab: l, api: l.Hosts()[0]}
	defer w.recover()
	underlay6(w)
}

func underlay6(w *world) {
	for _, h := range w.lab.Hosts() {
		w.must(h.Command(w.Context(), "ip", "-4", "addr", "flush", "dev", "eth0").Run())
	}
	id := w.network6("under-net", true)
	web := w.startGlobal("under-web", published(8247, network.TCP), attached(id))
	var names []string
	for _, task := range web {
		names = append(names, "under-web."+task.NodeID)
	}
	w.answered(askKept, six(w.lab.Hosts()), 8247, 12, "task", names)
	service, err := w.service("under-web")
	w.must(err)
	for _, task := range web {
		for _, at := range virtuals(service, id) {
			if strings.Contains(at, ":") {
				at = "[" + at + "]"
			}
			w.eventually(15*time.Second, "the virtual IP "+at+" answers", func() error {
				return balanced(task, at, addresses(task, id), names)
			})
		}
	}
	w.undrifted()
}
