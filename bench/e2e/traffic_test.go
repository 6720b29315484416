//go:build lab

package e2e

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab/labtest"
	"shoal/node/agent"
	"shoal/overlay/netns"
)

// mesh: every host answers for all tasks, also where none of them is, and stops
// answering at once for a service that is gone.
func mesh(w *world) {
	web := w.start("mesh-web", 6, published(8201, network.TCP))
	w.answered(ask, w.lab.Hosts(), 8201, 60, "task", slots("mesh-web", web))
	w.start("mesh-solo", 1, published(8202, network.TCP), on("h2"))
	w.answered(ask, w.lab.Hosts(), 8202, 10, "node", []string{"h2"})
	w.must(w.call(http.MethodDelete, "/services/mesh-solo", nil, nil))
	w.refused(8202)
	w.answered(ask, w.lab.Hosts(), 8201, 24, "task", slots("mesh-web", web))
}

// udp: the mesh takes packets as it takes connections.
func udp(w *world) {
	echo := w.start("udp-echo", 3, published(8203, network.UDP))
	w.answered(askUDP, w.lab.Hosts(), 8203, 30, "task", slots("udp-echo", echo))
}

// names: what a task's resolver answers.
func names(w *world) {
	net1 := w.network("names-net")
	other := w.network("names-other")
	web := w.start("names-web", 3, attached(net1, "shop"), published(8231, network.TCP), func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Hostname = "names-host" })
	rr := w.start("names-rr", 2, attached(net1), roundRobin)
	w.start("names-far", 1, attached(other))
	clients := w.startGlobal("names-client", attached(net1))
	service, err := w.service("names-web")
	w.must(err)
	vip := virtual(service, net1)
	all := func(tasks []swarm.Task) (out []string) {
		for _, task := range tasks {
			out = append(out, addresses(task, net1)...)
		}
		slices.Sort(out)
		return out
	}
	for _, client := range clients {
		for name, want := range map[string][]string{
			"names-web": {vip}, "names-web.names-net": {vip}, "shop": {vip},
			"tasks.names-web": all(web), "names-rr": all(rr), "tasks.names-rr": all(rr), "NAMES-Web": {vip}, "tasks.shop": all(web),
			"names-host": all(web), fmt.Sprintf("names-web.%d.%s", web[0].Slot, web[0].ID): all(web[:1]), agent.ContainerID(web[1].ID)[:12]: all(web[1:2]),
		} {
			w.eventually(10*time.Second, name, func() error {
				out, err := inside(client, "lookup", name)
				if got := strings.Fields(out); err == nil && !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
					err = fmt.Errorf("%s is %v, not %v", name, got, want)
				}
				return err
			})
		}
		w.reverse(client, net1, web)
		w.codes(client)
		w.srv(client, "_http._tcp.names-web.", all(web))
	}
}

// startGlobal starts a service with a task on every host.
func (w *world) startGlobal(name string, options ...option) []swarm.Task {
	w.Helper()
	w.create(name, 0, append(options, global)...)
	return w.running(name, len(w.lab.Hosts()), 30*time.Second)
}

// virtual is a service's virtual IP in a network.
func virtual(s swarm.Service, networkID string) string {
	for _, v := range s.Endpoint.VirtualIPs {
		if v.NetworkID == networkID {
			return v.Addr.Addr().String()
		}
	}
	return ""
}

// reverse: every task's address has the task's name.
func (w *world) reverse(client swarm.Task, networkID string, tasks []swarm.Task) {
	w.Helper()
	for _, task := range tasks {
		addr := addresses(task, networkID)[0]
		out, err := inside(client, "lookup", addr)
		if want := fmt.Sprintf("names-web.%d", task.Slot); err != nil || !strings.HasPrefix(out, want) {
			w.Errorf("%s is called %q (%v), not %s", addr, out, err, want)
		}
	}
}

// srv: the tasks behind a port, their addresses beside them; names live for a few
// seconds.
func (w *world) srv(client swarm.Task, name string, want []string) {
	w.Helper()
	answer, err := query(client, name, dns.TypeSRV)
	if err != nil || len(answer.Answer) != len(want) || !slices.Equal(values(answer.Extra), want) {
		w.Errorf("SRV of %s: %v %v", name, answer, err)
		return
	}
	for _, rr := range answer.Answer {
		record, ok := rr.(*dns.SRV)
		if !ok || record.Port != 80 || rr.Header().Ttl > 5 {
			w.Errorf("SRV of %s: %v", name, rr)
			continue
		}
		addr, err := query(client, record.Target, dns.TypeA)
		if err != nil || len(addr.Answer) != 1 || !slices.Contains(want, values(addr.Answer)[0]) {
			w.Errorf("A of %s: %v %v", record.Target, addr, err)
		}
	}
}

// codes: a name without an IPv6 address is no error, an unknown name is one, and
// so is the name of a service in another network.
func (w *world) codes(client swarm.Task) {
	w.Helper()
	answer, err := query(client, "names-web.", dns.TypeAAAA)
	if err != nil || answer.Rcode != dns.RcodeSuccess || len(answer.Answer) != 0 {
		w.Errorf("AAAA of names-web: %v %v", answer, err)
	}
	for _, name := range []string{"names-nobody.", "names-far.", "tasks.names-far."} {
		if answer, err = query(client, name, dns.TypeA); err != nil || answer.Rcode == dns.RcodeSuccess {
			w.Errorf("A of %s: %v %v", name, answer, err)
		}
	}
}

// query asks the resolver of a task.
func query(task swarm.Task, name string, kind uint16) (*dns.Msg, error) {
	var conn net.Conn
	err := netns.Do(fmt.Sprintf("/proc/%d/ns/net", pid(task)), func() (err error) {
		conn, err = net.Dial("udp", "127.0.0.11:53")
		return err
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := dns.Client{Timeout: labtest.Within(10 * time.Second)}
	answer, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(name, kind), &dns.Conn{Conn: conn})
	return answer, err
}

// vipSourceAddress: behind a virtual IP the server sees who asks, not a balancer,
// whichever hosts the two are on, and a task may ask its own service.
func vipSourceAddress(w *world) {
	id := w.network("vip-net")
	web := w.start("vip-web", 3, attached(id))
	clients := w.startGlobal("vip-client", attached(id))
	for _, client := range clients {
		own := addresses(client, id)
		w.eventually(15*time.Second, "the virtual IP answers with the client's own address", func() error {
			return balanced(client, "vip-web", own, slots("vip-web", web))
		})
	}
	alone := w.start("vip-alone", 1, attached(id))[0]
	w.eventually(15*time.Second, "a task reaches itself", func() error {
		return balanced(alone, "vip-alone", nil, []string{"vip-alone.1"})
	})
	w.eventually(15*time.Second, "UDP to the virtual IP", func() error {
		out, err := inside(clients[0], "udp", "vip-web:80")
		if err != nil {
			return err
		}
		_, err = parse(out)
		return err
	})
}

// balanced asks a service 30 times from a task: the tasks wanted must all answer,
// and see the client with one of its own addresses, if those are given.
func balanced(client swarm.Task, service string, own, want []string) error {
	out, err := inside(client, "get", "-n", "30", "http://"+service+"/")
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, text := range strings.Split(out, "task=")[1:] {
		r, err := parse("task=" + text)
		if err != nil {
			return err
		}
		from, err := netip.ParseAddrPort(r["client"])
		if err != nil {
			return err
		}
		if own != nil && !slices.Contains(own, from.Addr().Unmap().String()) {
			return fmt.Errorf("%s saw %s, the client is %v", r["task"], from, own)
		}
		seen[r["task"]] = true
	}
	if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		return fmt.Errorf("%v answered, not %v", got, want)
	}
	return nil
}
