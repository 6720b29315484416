//go:build lab

package e2e

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
)

// networkLife: networks are joined and left, have several subnets, run out of
// addresses, go and come again under the same name, and the routing mesh moves to
// another one.
func networkLife(w *world) {
	joinAndLeave(w)
	severalSubnets(w)
	removeAndMakeAgain(w)
	otherIngress(w)
	w.undrifted()
}

// change updates a service's specification.
func (w *world) change(name string, edit func(*swarm.ServiceSpec)) {
	w.Helper()
	s, err := w.service(name)
	w.must(err)
	edit(&s.Spec)
	w.must(w.call(http.MethodPost, "/services/"+s.ID+"/update?version="+strconv.FormatUint(s.Version.Index, 10), s.Spec, nil))
}

// found waits until a client finds a name, or does not find it any more.
func (w *world) found(client swarm.Task, name string, want bool) {
	w.Helper()
	w.eventually(20*time.Second, fmt.Sprintf("%s is found: %v", name, want), func() error {
		out, err := inside(client, "lookup", name)
		if (err == nil) != want {
			return fmt.Errorf("the answer is %q, %v", out, err)
		}
		return nil
	})
}

func joinAndLeave(w *world) {
	one, two := w.network("life-one"), w.network("life-two")
	w.start("life-web", 2, attached(one))
	client := w.startGlobal("life-client", attached(two))[0]
	w.found(client, "life-web", false)
	w.change("life-web", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Networks = append(s.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: two, Aliases: []string{"shop"}})
	})
	for _, name := range []string{"life-web", "shop"} {
		w.eventually(30*time.Second, name+" answers on the network that it joined", func() error {
			tasks := w.running("life-web", 2, 30*time.Second)
			return balanced(client, name, addresses(client, two), slots("life-web", tasks))
		})
	}
	w.change("life-web", func(s *swarm.ServiceSpec) { s.TaskTemplate.Networks = s.TaskTemplate.Networks[:1] })
	w.found(client, "life-web", false)
	err := w.call(http.MethodDelete, "/networks/"+two, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "network life-two is in use by service life-client") {
		w.Errorf("a network in use is removed: %v", err)
	}
}

func severalSubnets(w *world) {
	var made struct{ Id string }
	req := network.CreateRequest{Name: "life-small", Driver: "overlay", IPAM: &network.IPAM{Config: []network.IPAMConfig{
		{Subnet: netip.MustParsePrefix("10.210.0.0/29")}, {Subnet: netip.MustParsePrefix("10.210.1.0/29")},
	}}}
	w.must(w.call(http.MethodPost, "/networks/create", req, &made))
	w.networks = append(w.networks, made.Id)
	// Ten addresses are left of sixteen, and one is the virtual IP.
	tasks := w.start("life-many", 9, attached(made.Id))
	subnets := map[string]swarm.Task{}
	for _, task := range tasks {
		subnets[addresses(task, made.Id)[0][:8]] = task
	}
	if len(subnets) != 2 {
		w.Fatalf("the tasks are in %d subnets", len(subnets))
	}
	for _, client := range subnets {
		w.eventually(15*time.Second, "every subnet is reached", func() error {
			return balanced(client, "life-many", addresses(client, made.Id), slots("life-many", tasks))
		})
	}
	w.must(w.scale("life-many", 10))
	w.eventually(15*time.Second, "the task without an address says why", func() error {
		list, err := w.tasks(map[string][]string{"service": {"life-many"}})
		if err == nil && !slices.ContainsFunc(list, func(t swarm.Task) bool {
			return strings.HasPrefix(t.Status.Err, "no address left in network life-small (10.210.0.0/29, 10.210.1.0/29)")
		}) {
			err = fmt.Errorf("none of %d tasks does", len(list))
		}
		return err
	})
	w.must(w.call(http.MethodDelete, "/services/life-many", nil, nil))
	// Long before the leader would give up waiting for nodes.
	w.eventually(12*time.Second, "every node has confirmed, and all addresses are free", func() error {
		var n network.Inspect
		err := w.call(http.MethodGet, "/networks/"+made.Id+"?verbose=true", nil, &n)
		if err != nil || n.Status == nil {
			return fmt.Errorf("no usage: %w", err)
		}
		for subnet, usage := range n.Status.IPAM.Subnets { // its own, the broadcast address and the gateway
			if usage.IPsInUse != 3 || usage.DynamicIPsAvailable != 5 {
				err = fmt.Errorf("%s: %+v", subnet, usage)
			}
		}
		return err
	})
}

// removeAndMakeAgain: names and a named subnet are free at once, although tasks of
// the old service take their time to stop.
func removeAndMakeAgain(w *world) {
	subnet := netip.MustParsePrefix("10.211.0.0/24")
	for range 3 {
		var made struct{ Id string }
		req := network.CreateRequest{Name: "life-again", Driver: "overlay", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}}}
		w.must(w.call(http.MethodPost, "/networks/create", req, &made))
		began := time.Now()
		tasks := w.startGlobal("life-again", attached(made.Id), published(8211, network.TCP))
		var names []string
		for _, task := range tasks {
			names = append(names, "life-again."+task.NodeID)
		}
		w.answered(ask, w.lab.Hosts(), 8211, 9, "task", names)
		for _, client := range tasks {
			w.eventually(10*time.Second, "its name answers", func() error {
				return balanced(client, "life-again", addresses(client, made.Id), names)
			})
		}
		w.Logf("reached by name and port after %s", time.Since(began).Round(time.Millisecond))
		w.must(w.call(http.MethodDelete, "/services/life-again", nil, nil))
		w.must(w.call(http.MethodDelete, "/networks/life-again", nil, nil))
	}
}

// otherIngress gives the routing mesh a network of the user's, and takes it back.
func otherIngress(w *world) {
	w.removeServices()
	ingress := func(name string, six bool, configs ...network.IPAMConfig) error {
		return w.call(http.MethodPost, "/networks/create", network.CreateRequest{
			Name: name, Driver: "overlay", Ingress: true, EnableIPv6: &six, IPAM: &network.IPAM{Config: configs},
		}, nil)
	}
	w.must(w.call(http.MethodDelete, "/networks/ingress", nil, nil))
	err := w.call(http.MethodPost, "/services/create", define("life-mesh", 1, published(8212, network.TCP)), nil)
	if err == nil || !strings.Contains(err.Error(), "service needs ingress network, but no ingress network is present") {
		w.Errorf("a port is published without an ingress network: %v", err)
	}
	subnet := netip.MustParsePrefix("10.212.0.0/24")
	w.must(ingress("life-ingress", false, network.IPAMConfig{Subnet: subnet, Gateway: netip.MustParseAddr("10.212.0.254")}))
	if err := ingress("life-third", false); err == nil || !strings.Contains(err.Error(), "is already present") {
		w.Errorf("a second ingress network: %v", err)
	}
	tasks := w.start("life-mesh", 3, published(8212, network.TCP))
	for _, task := range tasks {
		if got := task.NetworksAttachments[0].Addresses[0]; !subnet.Contains(got.Addr()) {
			w.Errorf("a task has %s on the ingress network", got)
		}
	}
	w.answered(ask, w.lab.Hosts(), 8212, 12, "task", slots("life-mesh", tasks))
	w.must(w.call(http.MethodDelete, "/services/life-mesh", nil, nil))
	w.must(w.call(http.MethodDelete, "/networks/life-ingress", nil, nil))
	w.must(ingress("ingress", true))
	again := w.start("life-back", 1, published(8212, network.TCP), on("h2"))
	w.answered(ask, []lab.Host{w.host(1), w.host(2)}, 8212, 3, "task", slots("life-back", again))
}
