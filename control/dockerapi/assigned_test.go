package dockerapi

import (
	"net/netip"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// TestNetworksOfAWorker: it lists what it was told of, with its own tasks.
func TestNetworksOfAWorker(t *testing.T) {
	app, gone, other := &api.Network{}, &api.Network{Removed: true}, &api.Network{}
	app.ID, app.Spec.Name = "net1", "app"
	gone.ID, gone.Spec.Name = "net2", "gone"
	other.ID, other.Spec.Name = "net3", "other"
	task := &api.Task{ServiceName: "web"}
	task.ID, task.ServiceID, task.Slot = "t1", "svc", 1
	task.Status.ContainerStatus = &swarm.ContainerStatus{ContainerID: "c1"}
	at := swarm.NetworkAttachment{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.1.5/24")}}
	at.Network.ID = "net1"
	task.NetworksAttachments = []swarm.NetworkAttachment{at}
	got := ShowAssigned([]*api.Network{app, gone, other}, []*api.Task{task})
	if len(got) != 2 || got[0].Name != "app" || got[0].Scope != "swarm" || got[1].Name != "other" || len(got[1].Containers) != 0 {
		t.Fatalf("listed %+v", got)
	}
	c := got[0].Containers["c1"]
	if c.Name != "web.1.t1" || c.IPv4Address.String() != "10.0.1.5/24" || c.MacAddress.String() != "02:42:0a:00:01:05" {
		t.Errorf("its container is %+v", c)
	}
}

// TestWorkersNetworkRoutes: list, filter and inspect need no managers' state.
func TestWorkersNetworkRoutes(t *testing.T) {
	c := newManager(t)
	c.become(swarm.LocalNodeStateActive, false)
	app := &api.Network{}
	app.ID, app.Spec.Name = "net1", "app"
	c.known = ShowAssigned([]*api.Network{app}, nil)
	var listed []struct{ Name string }
	if c.get("/networks?filters=%7B%22scope%22%3A%5B%22swarm%22%5D%2C%22dangling%22%3A%5B%22false%22%5D%7D", &listed); len(listed) != 1 || listed[0].Name != "app" {
		t.Errorf("listed %+v", listed)
	}
	var one struct{ ID string }
	if c.get("/networks/app?verbose=true", &one); one.ID != "net1" {
		t.Errorf("inspected %+v", one)
	}
	c.refuses([]refusal{{"removed by a worker", "DELETE", "/networks/app", nil, 503, textWorker}})
}
