package dockerapi

import (
	"net/netip"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// TestNetworkIsRemovedUnderTasksThatStop: the answer comes at once, and the name
// is free.
func TestNetworkIsRemovedUnderTasksThatStop(t *testing.T) {
	c := newManager(t)
	id := c.createNetwork("app")
	given := c.store.View().Network(id).Copy()
	given.VNI = 4099
	c.commit(api.UpdateAnyway(given))
	task := c.addTask(c.create(spec("web", attach("app"))), c.self().ID, 1)
	c.do("DELETE", "/services/web", nil)
	stopping := task.Copy()
	stopping.DesiredState = swarm.TaskStateRemove
	c.commit(api.UpdateAnyway(stopping))
	if code, body := c.do("DELETE", "/networks/app", nil); code != 204 {
		t.Fatalf("network rm: %d %s", code, body)
	}
	if again := c.createNetwork("app"); again == id {
		t.Error("the new network has the old one's id")
	}
	if c.store.View().RemovedNetwork(id) == nil {
		t.Error("nothing is left for the task that stops")
	}
	var list []network.Summary
	if c.get("/networks?filters="+`{"name":["app"]}`, &list); len(list) != 1 {
		t.Errorf("%d networks of that name are listed", len(list))
	}
}

// TestNetworkShowsItsAddresses: auxiliary addresses come back, and verbose says how
// many addresses are left.
func TestNetworkShowsItsAddresses(t *testing.T) {
	c := newManager(t)
	body := `{"Name":"app","Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.9.0.0/24","IPRange":"10.9.0.128/25","AuxiliaryAddresses":{"router":"10.9.0.200"}}]}}`
	if code, text := c.do("POST", "/networks/create", body); code != 201 {
		t.Fatalf("%d %s", code, text)
	}
	allocated := c.store.View().NetworkByName("app").Copy()
	allocated.VNI, allocated.IPAMOptions = 4099, allocated.Spec.IPAMOptions
	allocated.IPAMOptions.Configs[0].Gateway = netip.MustParseAddr("10.9.0.128")
	c.commit(api.UpdateAnyway(allocated))
	c.addTask(c.create(spec("web", attach("app"))), c.self().ID, 1, func(t *api.Task) {
		t.NetworksAttachments = []swarm.NetworkAttachment{{
			Network:   swarm.Network{ID: allocated.ID, Spec: allocated.Spec},
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.130/24")},
		}}
		t.Status.ContainerStatus = &swarm.ContainerStatus{ContainerID: "c0ffee"}
	})
	var n network.Inspect
	c.get("/networks/app?verbose=true", &n)
	usage := n.Status.IPAM.Subnets[netip.MustParsePrefix("10.9.0.0/24")]
	// The subnet's own and its broadcast address, gateway, router and task.
	if usage.IPsInUse != 5 || usage.DynamicIPsAvailable != 127-3 {
		t.Errorf("usage %+v", usage)
	}
	if got := n.IPAM.Config[0].AuxAddress["router"]; got.String() != "10.9.0.200" {
		t.Errorf("auxiliary addresses %v", n.IPAM.Config[0].AuxAddress)
	}
	if got := n.Containers["c0ffee"]; got.IPv4Address.String() != "10.9.0.130/24" {
		t.Errorf("containers %+v", n.Containers)
	}
	n = network.Inspect{}
	if c.get("/networks/app", &n); n.Status != nil || len(n.Services) != 0 {
		t.Errorf("without verbose: %+v", n)
	}
	if code, text := c.do("POST", "/networks/create", `{"Name":"x","Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.8.0.0/24","AuxiliaryAddresses":{"a":"10.9.0.1"}}]}}`); code != 400 {
		t.Errorf("an auxiliary address outside: %d %s", code, text)
	}
}

// TestNetworkInUse: what a container alone holds is not dangling, and verbose lists
// the tasks that run, not those that begin or end.
func TestNetworkInUse(t *testing.T) {
	c := newManager(t)
	app, open := c.createNetwork("app"), c.createNetwork("open")
	web := c.create(spec("web", attach("app")))
	runs := c.addTask(web, c.self().ID, 1)
	c.addTask(web, c.self().ID, 2, func(t *api.Task) { t.Status.State = swarm.TaskStateStarting })
	c.addTask(web, c.self().ID, 3, func(t *api.Task) { t.DesiredState = swarm.TaskStateShutdown })
	box := &api.Task{}
	box.ID, box.Name, box.NodeID, box.DesiredState, box.Status.State = api.NewID(), "box", c.self().ID, swarm.TaskStateRunning, swarm.TaskStateRunning
	box.Spec.Runtime, box.Spec.NetworkAttachmentSpec = swarm.RuntimeNetworkAttachment, &swarm.NetworkAttachmentSpec{ContainerID: "c0ffee"}
	box.Spec.Networks = []swarm.NetworkAttachmentConfig{{Target: open}}
	box.NetworksAttachments = []swarm.NetworkAttachment{{
		Network: c.store.View().Network(open).Network, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.9.3/24")},
	}}
	c.commit(api.Create(box))
	var list []network.Summary
	if c.get(`/networks?filters={"dangling":["true"]}`, &list); len(list) != 1 || list[0].Name != "ingress" {
		t.Errorf("dangling: %+v", list)
	}
	var n network.Inspect
	c.get("/networks/"+app+"?verbose=true", &n)
	if tasks := n.Services["web"].Tasks; len(tasks) != 1 || tasks[0].EndpointID != runs.ID {
		t.Errorf("tasks %+v", tasks)
	}
}

// TestNetworkThatThePoolHasNoSubnetFor: it is refused at once, with the ways out.
func TestNetworkThatThePoolHasNoSubnetFor(t *testing.T) {
	c := newManager(t)
	small := c.store.View().Cluster().Copy()
	small.DefaultAddrPool = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/23")}
	c.commit(api.UpdateAnyway(small))
	c.createNetwork("app") // the other subnet is the ingress network's
	row := func(name, body string, code int, text string) refusal {
		return refusal{name, "POST", "/networks/create", body, code, text}
	}
	c.refuses([]refusal{
		row("no subnet", `{"Name":"more","Driver":"overlay"}`, 400, "could not find an available, non-overlapping IPv4 address pool among the defaults "+
			"to assign to the network: name one with --subnet, or give the swarm a larger --default-addr-pool when it is made"),
	})
	if code, text := c.do("POST", "/networks/create", `{"Name":"more","Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.8.0.0/24"}]}}`); code != 201 {
		t.Errorf("with a subnet of its own: %d %s", code, text)
	}
}
