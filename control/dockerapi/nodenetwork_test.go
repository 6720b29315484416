package dockerapi

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func hostPort(target, published uint32) swarm.PortConfig {
	return swarm.PortConfig{TargetPort: target, PublishedPort: published, PublishMode: swarm.PortConfigPublishModeHost}
}

func TestServiceOnANetworkOfTheNodes(t *testing.T) {
	c := newManager(t)
	for i, edit := range []func(*swarm.ServiceSpec){
		attach("host"), attach("shoalhost"), attach("none"),
		func(s *swarm.ServiceSpec) { attach("host")(s); s.Mode.Global = &swarm.GlobalService{} },
		func(s *swarm.ServiceSpec) { attach("host")(s); publish(hostPort(9100, 9100))(s) },
		func(s *swarm.ServiceSpec) {
			attach("host")(s)
			s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
			s.TaskTemplate.ContainerSpec.Sysctls = map[string]string{"kernel.msgmax": "9000"}
		},
	} {
		id := c.create(spec(fmt.Sprintf("s%d", i), edit))
		target := c.store.View().Service(id).Spec.TaskTemplate.Networks[0].Target
		if want := api.NodeNetworkID("host"); target != want && i != 2 {
			t.Errorf("service %d is on %q, not on %q", i, target, want)
		}
		if n := c.store.View().Network(target); n == nil || !n.Predefined {
			t.Errorf("service %d: the state knows the network as %v", i, n)
		}
	}
	if n := len(c.store.View().Networks()); n != 3 { // with ingress
		t.Errorf("%d networks are known", n)
	}
	var listed []map[string]any
	c.get("/networks", &listed)
	for _, n := range listed {
		if n["Name"] == "host" {
			t.Errorf("listed beside the node's own, which the daemon adds: %v", n)
		}
	}
	c.refuses([]refusal{{"create", "POST", "/networks/create", map[string]string{"Name": "host", "Driver": "overlay"}, 403, "host is a pre-defined network and cannot be created"}})
}

// TestServiceMovesToTheHost goes there by update and comes back by rollback.
func TestServiceMovesToTheHost(t *testing.T) {
	c := newManager(t)
	c.createNetwork("app")
	id := c.create(spec("agent", attach("app")))
	for i, step := range []struct {
		query string
		spec  swarm.ServiceSpec
		host  bool
	}{{"", spec("agent", attach("host")), true}, {"&rollback=previous", spec("agent"), false}, {"&rollback=previous", spec("agent"), true}} {
		path := fmt.Sprintf("/services/agent/update?version=%d%s", c.store.View().Service(id).Version.Index, step.query)
		if code, body := c.do("POST", path, step.spec); code != 200 {
			t.Fatalf("step %d: %d %s", i, code, body)
		}
		if on := nodeNetworkOf(&c.store.View().Service(id).Spec) == "host"; on != step.host {
			t.Errorf("step %d: on the host: %v", i, on)
		}
	}
}

// TestTwoManagersMakeTheHostKnown has another manager be faster.
func TestTwoManagersMakeTheHostKnown(t *testing.T) {
	c := newManager(t)
	c.interfere = func() { c.commit(api.Create(api.NodeNetwork("host"))) }
	c.create(spec("agent", attach("host")))
	c.interfere = func() { c.commit(api.Create(api.NodeNetwork("none"))) }
	code, body := c.do("POST", "/services/create", spec("agent", attach("none")))
	if code != 409 || !strings.Contains(body, "service agent already exists") {
		t.Errorf("%d %s", code, body)
	}
}

func TestRefusalsOnANetworkOfTheNodes(t *testing.T) {
	c := newManager(t)
	c.createNetwork("app")
	agent := c.create(spec("agent", attach("host")))
	version := c.store.View().Service(agent).Version.Index
	const (
		alone   = "a service on the network host is on no other, for its tasks have their node's own network, which Shoal adds no interface to: leave out --network host, or "
		ingress = "port 80 cannot be published in ingress mode: the routing mesh sends to addresses of tasks, and tasks on the network host have none; " +
			"leave out --publish, for what they listen on is open on their node, or publish it with mode=host,published=80"
		moved = "port 80 cannot be published as another one: nothing is translated on the way to tasks on the network host; " +
			"leave out --publish, for what they listen on is open on their node, or say published=80"
	)
	var rows []refusal
	for _, row := range []struct {
		name, text string
		edit       []func(*swarm.ServiceSpec)
	}{
		{"overlay too", alone + "app", []func(*swarm.ServiceSpec){attach("host", "app")}},
		{"overlay first", alone + "app", []func(*swarm.ServiceSpec){attach("app", "host")}},
		{"none too", alone + "none", []func(*swarm.ServiceSpec){attach("host", "none")}},
		{"twice", "service is attached to network host more than once", []func(*swarm.ServiceSpec){attach("host", "shoalhost")}},
		{"ingress port", ingress, []func(*swarm.ServiceSpec){attach("host"), publish(swarm.PortConfig{TargetPort: 80, PublishedPort: 80})}},
		{"another port", moved, []func(*swarm.ServiceSpec){attach("host"), publish(hostPort(80, 8080))}},
		{"any port", moved, []func(*swarm.ServiceSpec){attach("host"), publish(hostPort(80, 0))}},
		{"port without network", "port 80 cannot be published: nothing leads to tasks on the network none; leave out --publish or --network none",
			[]func(*swarm.ServiceSpec){attach("none"), publish(hostPort(80, 80))}},
		{"sysctl", "sysctl net.core.somaxconn would be the node's own on the network host: set it on the nodes, and leave out --sysctl",
			[]func(*swarm.ServiceSpec){attach("host"), func(s *swarm.ServiceSpec) {
				s.TaskTemplate.ContainerSpec.Sysctls = map[string]string{"net.core.somaxconn": "9"}
			}}},
	} {
		code := 400
		rows = append(rows,
			refusal{row.name + ", create", "POST", "/services/create", spec("new", row.edit...), code, row.text},
			refusal{row.name + ", update", "POST", fmt.Sprintf("/services/agent/update?version=%d", version), spec("agent", row.edit...), code, row.text})
	}
	c.refuses(rows)
}

// TestDockerFindsTheNetworksOfTheNodes by scope, which is how it looks for the
// networks of a service.
func TestDockerFindsTheNetworksOfTheNodes(t *testing.T) {
	c := newManager(t)
	for i := range 2 { // before and after the state knows of any
		for _, name := range []string{"host", "none", "bridge"} {
			var n network.Inspect
			c.get("/networks/"+name+"?scope=swarm&verbose=true", &n)
			if n.ID != api.NodeNetworkID(name) || n.Name != name || n.Scope != "swarm" {
				t.Errorf("%s: %+v", name, n)
			}
			c.get("/networks/"+n.ID+"?scope=swarm", &n)
		}
		c.create(spec(fmt.Sprintf("s%d", i), attach("host")))
	}
	missing := refusal{"another", "GET", "/networks/nope?scope=swarm", nil, 404, "network nope not found"}
	c.refuses([]refusal{missing})
	c.become(swarm.LocalNodeStateActive, false)
	missing.path, missing.text = "/networks/host?scope=swarm", "network host not found"
	c.refuses([]refusal{missing})
}

func TestWarningsOnANetworkOfTheNodes(t *testing.T) {
	s := spec("agent", attach("host"), publish(hostPort(80, 80)))
	s.TaskTemplate.Networks[0].Aliases = []string{"a"}
	s.Labels = map[string]string{api.LabelPublish: "eth0", api.LabelPublish + ".80": "eth0"}
	got := strings.Join(warnings(httptest.NewRequest("POST", "/services/create", nil), s), "; ")
	want := "aliases have no effect on the network host: its tasks are in nobody's names; " +
		"label shoal.publish.addr has no effect on the network host: the program itself chooses the addresses that it listens on; " +
		"label shoal.publish.addr.80 has no effect on the network host: the program itself chooses the addresses that it listens on"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s.TaskTemplate.Networks[0].Target = "app"
	if got := nodeNetworkWarnings(&s); got != nil {
		t.Errorf("warned of %q", got)
	}
}
