package alloc

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/api"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// world is a state that does at once what an allocator plans.
type world struct {
	a        *Allocator
	cluster  *api.Cluster
	networks map[string]*api.Network
	services map[string]*api.Service
	tasks    map[string]*api.Task
	retired  map[string]*api.Retired
	made     int
}

func newWorld() *world {
	return &world{New(), &api.Cluster{}, map[string]*api.Network{}, map[string]*api.Service{}, map[string]*api.Task{}, map[string]*api.Retired{}, 0}
}

func values[T api.Object](m map[string]T) []T {
	var list []T
	for _, o := range m {
		list = append(list, o)
	}
	return list
}

func (w *world) Cluster() *api.Cluster    { return w.cluster }
func (w *world) Nodes() []*api.Node       { return nil }
func (w *world) Networks() []*api.Network { return values(w.networks) }
func (w *world) Services() []*api.Service { return values(w.services) }
func (w *world) Tasks() []*api.Task       { return values(w.tasks) }
func (w *world) Retired() []*api.Retired  { return values(w.retired) }

func (w *world) put(o api.Object) {
	w.made++
	if m := o.ObjectMeta(); m.CreatedAt.IsZero() {
		m.CreatedAt = noon.Add(time.Duration(w.made) * time.Second)
	}
	switch o := o.(type) {
	case *api.Network:
		w.networks[o.ID] = o
		w.a.SetNetwork(o)
	case *api.Service:
		w.services[o.ID] = o
		w.a.SetService(o)
	case *api.Task:
		w.tasks[o.ID] = o
		w.a.SetTask(o)
	}
}

// plan carries out the allocator's plan and returns how much it was.
func (w *world) plan() int {
	ops := w.a.Plan(noon)
	for _, op := range ops {
		w.put(op.Object)
	}
	return len(ops)
}

func (w *world) network(name string, configs ...swarm.IPAMConfig) *api.Network {
	n := &api.Network{}
	n.ID, n.Spec.Name, n.Spec.Ingress = name, name, name == "ingress"
	if len(configs) > 0 {
		n.Spec.IPAMOptions = &swarm.IPAMOptions{Configs: configs}
	}
	w.put(n)
	return n
}

func (w *world) service(id string, ports []swarm.PortConfig, networks ...string) {
	s := &api.Service{}
	s.ID, s.Spec.Name = id, id
	s.Spec.EndpointSpec = &swarm.EndpointSpec{Ports: ports}
	for _, n := range networks {
		s.Spec.TaskTemplate.Networks = append(s.Spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: n})
	}
	w.put(s)
}

func (w *world) task(service string) string {
	t := &api.Task{}
	t.ID, t.ServiceID, t.DesiredState = fmt.Sprintf("t%04d", w.made), service, swarm.TaskStateRunning
	t.Spec, t.Status.State = w.services[service].Spec.TaskTemplate, swarm.TaskStateNew
	w.put(t)
	return t.ID
}

func (w *world) end(id string) {
	t := *w.tasks[id]
	var held []api.RetiredAddress
	for _, at := range t.NetworksAttachments {
		if t.Alive() {
			held = append(held, api.RetiredAddress{NetworkID: at.Network.ID, Addr: at.Addresses[0].Addr()})
		}
	}
	t.Status.State = swarm.TaskStateFailed
	w.put(&t)
	w.retire(id, held...)
}

// retire is what the store does with what somebody gives up.
func (w *world) retire(owner string, held ...api.RetiredAddress) {
	if len(held) == 0 {
		return
	}
	w.made++
	r := &api.Retired{ID: fmt.Sprintf("%s.%d", owner, w.made), Addresses: held}
	r.CreatedAt = noon.Add(time.Duration(w.made) * time.Second)
	w.retired[r.ID] = r
	w.a.SetRetired(r)
}

func (w *world) release() {
	for id := range w.retired {
		delete(w.retired, id)
		w.a.DropRetired(id)
	}
}

func (w *world) removeService(id string) {
	s := w.services[id]
	if s == nil {
		return
	}
	delete(w.services, id)
	w.a.DropService(id)
	for _, v := range s.Endpoint.VirtualIPs {
		w.retire(id, api.RetiredAddress{NetworkID: v.NetworkID, Addr: v.Addr.Addr()})
	}
}

func (w *world) removeNetwork(id string) {
	n := *w.networks[id]
	delete(w.networks, id)
	w.a.DropNetwork(id)
	n.Removed = true
	r := &api.Retired{ID: id + ".gone", Network: &n}
	w.retired[r.ID] = r
	w.a.SetRetired(r)
}

func config(subnet string) swarm.IPAMConfig {
	return swarm.IPAMConfig{Subnet: netip.MustParsePrefix(subnet)}
}

func TestNetworksGetSubnetsInTurn(t *testing.T) {
	w := newWorld()
	w.network("ingress")
	w.network("app")
	w.network("named", config("10.0.2.0/23"))
	w.plan()
	w.network("next")
	w.plan()
	rows := []struct {
		id, subnet, gateway string
	}{
		{"ingress", "10.0.0.0/24", "10.0.0.1"}, {"app", "10.0.1.0/24", "10.0.1.1"},
		{"named", "10.0.2.0/23", "10.0.2.1"}, {"next", "10.0.4.0/24", "10.0.4.1"},
	}
	vnis := map[uint32]bool{}
	for _, r := range rows {
		n := w.networks[r.id]
		c := n.IPAMOptions.Configs[0]
		if c.Subnet.String() != r.subnet || c.Gateway.String() != r.gateway {
			t.Errorf("%s: %v", r.id, c)
		}
		if n.VNI < FirstVNI || vnis[n.VNI] || n.DriverState.Options[vniOption] != fmt.Sprint(n.VNI) || n.DriverState.Name != "overlay" {
			t.Errorf("%s: identifier %d, %v", r.id, n.VNI, n.DriverState)
		}
		vnis[n.VNI] = true
	}
	if w.plan() != 0 {
		t.Error("a second plan is not empty")
	}
}

func TestSubnetsOfAnotherPoolAndAroundNodes(t *testing.T) {
	w := newWorld()
	w.cluster.DefaultAddrPool = []netip.Prefix{netip.MustParsePrefix("172.30.0.0/24"), netip.MustParsePrefix("172.31.0.0/24")}
	w.cluster.SubnetSize = 25
	w.a.SetCluster(w.cluster)
	n := &api.Node{}
	n.ID, n.Status.Addr = "n1", "172.30.0.200"
	w.a.SetNode(n)
	var got []string
	for i := range 4 {
		id := fmt.Sprint("net", i)
		w.network(id)
		w.plan()
		if o := w.networks[id].IPAMOptions; o != nil {
			got = append(got, o.Configs[0].Subnet.String())
		}
	}
	if want := []string{"172.30.0.0/25", "172.31.0.0/25", "172.31.0.128/25"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if err := w.a.Trouble()["net3"]; err == nil || !strings.Contains(err.Error(), "could not find an available") {
		t.Errorf("trouble: %v", err)
	}
	delete(w.networks, "net0")
	w.a.DropNetwork("net0")
	w.plan()
	if w.networks["net3"].IPAMOptions == nil || len(w.a.Trouble()) != 0 {
		t.Errorf("a freed subnet is not given: %v", w.a.Trouble())
	}
}

func TestServiceEndpoints(t *testing.T) {
	w := newWorld()
	w.network("ingress")
	w.network("app")
	w.network("db")
	w.plan()
	host := swarm.PortConfig{TargetPort: 5, PublishedPort: 30000, PublishMode: swarm.PortConfigPublishModeHost}
	w.service("other", []swarm.PortConfig{host})
	w.service("web", []swarm.PortConfig{{TargetPort: 80}, {TargetPort: 81, PublishedPort: 8080}, host, {TargetPort: 53, Protocol: network.UDP}}, "app", "db")
	w.plan()
	e := w.services["web"].Endpoint
	if got := fmt.Sprint(e.VirtualIPs); got != "[{ingress 10.0.0.2/24} {app 10.0.1.2/24} {db 10.0.2.2/24}]" {
		t.Errorf("virtual IPs %s", got)
	}
	if e.Ports[0].PublishedPort != 30001 || e.Ports[1].PublishedPort != 8080 || e.Ports[3].PublishedPort != 30002 || e.Spec.Mode != swarm.ResolutionModeVIP {
		t.Errorf("ports %+v", e.Ports)
	}
	s := *w.services["web"]
	s.Spec.TaskTemplate.Networks = s.Spec.TaskTemplate.Networks[1:]
	s.Spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80}}}
	w.put(&s)
	w.plan()
	e = w.services["web"].Endpoint
	if got := fmt.Sprint(e.VirtualIPs); got != "[{ingress 10.0.0.2/24} {db 10.0.2.2/24}]" || e.Ports[0].PublishedPort != 30001 {
		t.Errorf("after the change: %s %+v", got, e.Ports)
	}
	s = *w.services["web"]
	s.Spec.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR}
	w.put(&s)
	w.plan()
	if e = w.services["web"].Endpoint; len(e.VirtualIPs) != 0 || len(e.Ports) != 0 || e.Spec.Mode != swarm.ResolutionModeDNSRR {
		t.Errorf("dnsrr: %+v", e)
	}
	if got := len(w.a.networks["db"].used); got != 0 {
		t.Errorf("%d addresses are still taken", got)
	}
}

// TestNetworksOfTheNodes gives no virtual IP, no subnet and no address there.
func TestNetworksOfTheNodes(t *testing.T) {
	w := newWorld()
	w.network("ingress")
	w.plan()
	for _, name := range []string{api.NetworkHost, api.NetworkNone} {
		w.put(api.NodeNetwork(name))
		w.service(name, []swarm.PortConfig{{TargetPort: 80, PublishedPort: 80, PublishMode: swarm.PortConfigPublishModeHost}}, api.NodeNetworkID(name))
		id := w.task(name)
		w.plan()
		if e := w.services[name].Endpoint; len(e.VirtualIPs) != 0 || len(e.Ports) != 1 || e.Spec.Mode != swarm.ResolutionModeVIP {
			t.Errorf("%s: endpoint %+v", name, e)
		}
		task := w.tasks[id]
		if task.Status.State != swarm.TaskStatePending || task.OnHost() != (name == api.NetworkHost) || task.OnNone() != (name == api.NetworkNone) ||
			len(task.NetworksAttachments) != 1 || len(task.NetworksAttachments[0].Addresses) != 0 {
			t.Errorf("%s: task %+v", name, task)
		}
		if n := w.networks[api.NodeNetworkID(name)]; n.VNI != 0 || n.IPAMOptions != nil {
			t.Errorf("%s: network %+v", name, n)
		}
	}
	if w.plan() != 0 || len(w.a.Trouble()) != 0 {
		t.Errorf("trouble %v", w.a.Trouble())
	}
}

func TestTaskAddresses(t *testing.T) {
	w := newWorld()
	w.network("app")
	w.plan()
	w.service("web", nil, "app")
	first, second := w.task("web"), w.task("web")
	w.plan()
	addr := func(id string) string { return w.tasks[id].NetworksAttachments[0].Addresses[0].String() }
	if addr(first) != "10.0.0.3/24" || addr(second) != "10.0.0.4/24" {
		t.Errorf("%s %s", addr(first), addr(second))
	}
	at := w.tasks[first].NetworksAttachments[0].Network
	if at.ID != "app" || at.IPAMOptions == nil || w.tasks[first].Status.State != swarm.TaskStatePending {
		t.Errorf("task %+v", w.tasks[first])
	}
	w.end(second)
	third := w.task("web")
	w.plan()
	if addr(third) != "10.0.0.5/24" {
		t.Errorf("a freed address does not rest: %s", addr(third))
	}
	// So too after a change of leader.
	w.end(third)
	w.a = Load(w)
	fourth := w.task("web")
	w.plan()
	if addr(fourth) != "10.0.0.6/24" {
		t.Errorf("a freed address does not rest with a new leader: %s", addr(fourth))
	}
}

func TestRangeAndGateway(t *testing.T) {
	w := newWorld()
	c := config("10.9.0.0/24")
	c.Range, c.Gateway = netip.MustParsePrefix("10.9.0.128/30"), netip.MustParseAddr("10.9.0.129")
	w.network("app", c)
	w.plan()
	w.service("web", nil, "app")
	w.plan()
	for range 3 {
		w.task("web")
	}
	w.plan()
	got := map[string]bool{w.services["web"].Endpoint.VirtualIPs[0].Addr.String(): true}
	waiting := 0
	for _, task := range w.tasks {
		if task.Status.State == swarm.TaskStatePending {
			got[task.NetworksAttachments[0].Addresses[0].String()] = true
		} else {
			waiting++
		}
	}
	want := map[string]bool{"10.9.0.128/24": true, "10.9.0.130/24": true, "10.9.0.131/24": true}
	if !reflect.DeepEqual(got, want) || waiting != 1 {
		t.Errorf("got %v, %d wait", got, waiting)
	}
}

func TestExhaustedNetworkSaysSoAndRecovers(t *testing.T) {
	w := newWorld()
	w.network("app", config("10.0.1.0/29"))
	w.plan()
	w.service("web", nil, "app")
	w.plan()
	var tasks []string
	for range 6 {
		tasks = append(tasks, w.task("web"))
	}
	w.plan()
	last := w.tasks[tasks[5]]
	if last.Status.State != swarm.TaskStateNew || !strings.HasPrefix(last.Status.Err, "no address left in network app (10.0.1.0/29)") {
		t.Fatalf("status %+v", last.Status)
	}
	if w.plan() != 0 {
		t.Error("the refusal is written again")
	}
	w.end(tasks[0])
	w.end(tasks[1])
	w.release()
	w.plan()
	for _, id := range tasks[4:] {
		if s := w.tasks[id].Status; s.State != swarm.TaskStatePending || s.Err != "" {
			t.Errorf("still %+v", s)
		}
	}
}

func TestWhatIsOnlyPlannedFreesNothing(t *testing.T) {
	w := newWorld()
	w.network("app", config("10.0.1.0/29"))
	w.plan()
	w.service("web", nil, "app")
	w.plan()
	for range 4 {
		w.task("web")
	}
	w.plan()
	last := w.task("web")
	gone := values(w.tasks)[0].ID
	for gone == last {
		gone = values(w.tasks)[0].ID
	}
	w.a.Draft(w.tasks[gone], true)
	w.plan()
	if w.tasks[last].Status.State != swarm.TaskStateNew {
		t.Error("an address was given before it was free")
	}
	delete(w.tasks, gone)
	w.a.DropTask(gone)
	w.plan()
	if w.tasks[last].Status.State != swarm.TaskStatePending {
		t.Error("a freed address is not given")
	}
}

func TestMissingNetworkIsSaid(t *testing.T) {
	w := newWorld()
	w.service("web", nil, "nope")
	id := w.task("web")
	w.plan()
	if got := w.tasks[id].Status.Err; got != "network nope not found" {
		t.Errorf("got %q", got)
	}
	w.service("pub", []swarm.PortConfig{{TargetPort: 80}})
	id = w.task("pub")
	w.plan()
	if got := w.tasks[id].Status.Err; !strings.Contains(got, "no ingress network is present") {
		t.Errorf("got %q", got)
	}
}

func TestValidateNetwork(t *testing.T) {
	w := newWorld()
	w.network("app")
	w.plan()
	rows := []struct {
		config swarm.IPAMConfig
		want   string
	}{
		{config("10.1.0.0/16"), ""},
		{config("10.0.0.128/25"), "invalid pool request: Pool overlaps with other one on this address space"},
		{swarm.IPAMConfig{Gateway: netip.MustParseAddr("10.1.0.1")}, "invalid network config: a gateway or range of network new needs a subnet"},
		{swarm.IPAMConfig{Subnet: netip.MustParsePrefix("10.1.0.0/16"), Gateway: netip.MustParseAddr("10.2.0.1")}, "no matching subnet for gateway 10.2.0.1"},
		{swarm.IPAMConfig{Subnet: netip.MustParsePrefix("10.1.0.0/16"), Range: netip.MustParsePrefix("10.2.0.0/24")}, "invalid network config: range 10.2.0.0/24 is outside of subnet 10.1.0.0/16"},
		{config("10.1.0.0/31"), "invalid network config: subnet 10.1.0.0/31 of network new has no room for a gateway and a task"},
	}
	for _, r := range rows {
		n := &api.Network{}
		n.ID, n.Spec.Name = "new", "new"
		n.Spec.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{r.config}}
		got := ""
		if err := ValidateNetwork(w, n); err != nil {
			got = err.Error()
		}
		if got != r.want {
			t.Errorf("%v: %q", r.config, got)
		}
	}
	for text, want := range map[string]api.ErrorKind{"4096": api.Conflict, "4096,5000": api.Conflict, "nonsense": api.Invalid, "0": api.Invalid, "5000": "", "": ""} {
		n := &api.Network{}
		n.ID, n.Spec.Name = "new", "new"
		n.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay", Options: map[string]string{vniOption: text}}
		if err := ValidateNetwork(w, n); (err == nil) != (want == "") || err != nil && api.KindOf(err) != want {
			t.Errorf("identifier %q: %v", text, err)
		}
	}
}

// TestValidateNetworkAsksThePools: a network that there would be no subnet for is
// refused, with those counted that wait, and without those that are removed.
func TestValidateNetworkAsksThePools(t *testing.T) {
	const full4 = "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: " +
		"name one with --subnet, or give the swarm a larger --default-addr-pool when it is made"
	full6 := strings.Replace(full4, "IPv4", "IPv6", 1)
	given := func(w *world, names ...string) {
		for _, name := range names {
			w.network(name)
			w.plan()
		}
	}
	for name, row := range map[string]struct {
		before func(w *world)
		change func(n *api.Network)
		want   string
	}{
		"one left":      {func(w *world) { given(w, "a") }, nil, ""},
		"none left":     {func(w *world) { given(w, "a", "b") }, nil, full4},
		"all wait":      {func(w *world) { w.network("a"); w.network("b") }, nil, full4},
		"one waits":     {func(w *world) { w.network("a") }, nil, ""},
		"more wait":     {func(w *world) { given(w, "a", "b"); w.network("c") }, nil, full4},
		"named by hand": {func(w *world) { w.network("a", config("10.9.0.0/23")) }, nil, full4},
		"named outside": {func(w *world) { w.network("a", config("10.8.0.0/16")) }, nil, ""},
		"removed":       {func(w *world) { given(w, "a", "b"); w.removeNetwork("a") }, nil, ""},
		"names its own": {func(w *world) { given(w, "a", "b") }, func(n *api.Network) {
			n.Spec.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{config("10.7.0.0/24")}}
		}, ""},
		"IPv6 too":          {func(w *world) { given(w, "a") }, func(n *api.Network) { n.Spec.IPv6Enabled = true }, ""},
		"IPv6 alone":        {func(w *world) { given(w, "a", "b") }, func(n *api.Network) { n.NoIPv4, n.Spec.IPv6Enabled = true, true }, ""},
		"IPv6 pool is full": {func(w *world) { w.network("a", config("fd00:9::/64")) }, func(n *api.Network) { n.Spec.IPv6Enabled = true }, full6},
		"of this node":      {func(w *world) { given(w, "a", "b") }, func(n *api.Network) { n.Spec.Scope = "local" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.cluster.DefaultAddrPool = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/23"), netip.MustParsePrefix("fd00:9::/64")}
			w.a.SetCluster(w.cluster)
			row.before(w)
			n := &api.Network{}
			n.ID, n.Spec.Name = "new", "new"
			if row.change != nil {
				row.change(n)
			}
			err := ValidateNetwork(w, n)
			if row.want == "" && err != nil || row.want != "" && (err == nil || err.Error() != row.want || api.KindOf(err) != api.Invalid) {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

// TestWhatIsRetiredWaits: a removed network's subnet and identifier go to nobody
// who leaves the choice open, one that names the subnet lives beside the removed
// one, and one that names the identifier waits.
func TestWhatIsRetiredWaits(t *testing.T) {
	w := newWorld()
	w.cluster.DefaultAddrPool, w.cluster.SubnetSize = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/23")}, 24
	w.a.SetCluster(w.cluster)
	w.network("old")
	w.plan()
	w.network("other")
	w.plan()
	w.removeNetwork("old")
	w.network("next")
	w.plan()
	if err := w.a.Trouble()["next"]; err == nil || w.networks["next"].VNI != 0 {
		t.Errorf("the subnet of a removed network is given before the nodes confirmed: %v", err)
	}
	w.network("named", config("10.0.0.0/24"))
	n := &api.Network{}
	n.ID, n.Spec.Name = "same", "same"
	n.Spec.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{config("10.9.0.0/24")}}
	n.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay", Options: map[string]string{vniOption: "4096"}}
	w.put(n)
	w.plan()
	if got := w.networks["named"]; got.VNI == 0 || got.VNI == 4096 {
		t.Errorf("a network that names the subnet is to live beside the removed one, got VNI %d", got.VNI)
	}
	if err := w.a.Trouble()["same"]; err == nil || !strings.Contains(err.Error(), "removed network old is gone") {
		t.Errorf("the identifier of a removed network: %v", err)
	}
	w.release()
	w.plan()
	if w.networks["same"].VNI != 4096 {
		t.Errorf("after the release the identifier is %d", w.networks["same"].VNI)
	}
}

// TestExhaustedNetworkSaysWhatWaits: the words reach the task's status.
func TestExhaustedNetworkSaysWhatWaits(t *testing.T) {
	w := newWorld()
	w.network("tiny", config("10.0.1.0/29"))
	w.plan()
	w.service("s0", nil, "tiny")
	w.plan()
	var ids []string
	for range 4 {
		ids = append(ids, w.task("s0"))
	}
	w.plan()
	w.end(ids[0])
	late := w.task("s0")
	w.plan()
	want := "no address left in network tiny (10.0.1.0/29): 5 of its addresses are in use, 1 of them until every node has confirmed that their last owners are gone"
	if got := w.tasks[late].Status.Err; got != want {
		t.Errorf("got %q", got)
	}
	w.release()
	w.plan()
	if w.tasks[late].Status.State != swarm.TaskStatePending {
		t.Errorf("after the release the task is %s: %s", w.tasks[late].Status.State, w.tasks[late].Status.Err)
	}
}

// TestSubnetHoldsItsTasks: a /24 has room for 252 tasks and a virtual IP besides
// the gateway, however many nodes there are.
func TestSubnetHoldsItsTasks(t *testing.T) {
	w := newWorld()
	for i := range 100 {
		n := &api.Node{}
		n.ID = fmt.Sprint("node", i)
		n.Status.Addr = fmt.Sprintf("192.168.0.%d", i+1)
		w.a.SetNode(n)
	}
	w.network("app", config("10.0.1.0/24"))
	w.plan()
	w.service("s0", nil, "app")
	w.plan()
	for range 252 {
		w.task("s0")
	}
	w.plan()
	for id, task := range w.tasks {
		if task.Status.State != swarm.TaskStatePending {
			t.Fatalf("task %s is %s: %s", id, task.Status.State, task.Status.Err)
		}
	}
}

// TestNoAddressTwice draws what happens and checks after each plan that no
// address has two owners and that the allocator knows what is written.
func TestNoAddressTwice(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld()
		w.network("ingress", config("10.0.0.0/28"))
		w.network("app", config("10.0.1.0/28"))
		w.plan()
		for range rapid.IntRange(1, 60).Draw(r, "steps") {
			switch rapid.IntRange(0, 7).Draw(r, "step") {
			case 0:
				var ports []swarm.PortConfig
				if rapid.Bool().Draw(r, "port") {
					ports = []swarm.PortConfig{{TargetPort: 80}}
				}
				w.service(fmt.Sprint("s", rapid.IntRange(0, 5).Draw(r, "service")), ports, "app")
			case 1, 2, 3:
				if _, ok := w.services["s0"]; ok {
					w.task("s0")
				}
			case 4:
				id := fmt.Sprintf("t%04d", rapid.IntRange(0, w.made).Draw(r, "task"))
				if w.tasks[id] != nil {
					w.end(id)
				}
			case 5:
				w.a = Load(w)
			case 6:
				w.removeService(fmt.Sprint("s", rapid.IntRange(0, 5).Draw(r, "service")))
			case 7:
				w.release()
			}
			w.plan()
			w.check(r)
		}
	})
}

func (w *world) check(r *rapid.T) {
	owner := map[string]string{}
	own := func(network string, addr netip.Addr, id string) {
		k := network + addr.String()
		if owner[k] != "" {
			r.Fatalf("%s belongs to %s and %s", k, owner[k], id)
		}
		owner[k] = id
	}
	for _, gone := range w.retired {
		for _, h := range gone.Addresses {
			own(h.NetworkID, h.Addr, gone.ID)
		}
	}
	for _, s := range w.services {
		for _, v := range s.Endpoint.VirtualIPs {
			own(v.NetworkID, v.Addr.Addr(), s.ID)
		}
	}
	for _, t := range w.tasks {
		for _, at := range t.NetworksAttachments {
			if t.Alive() {
				own(at.Network.ID, at.Addresses[0].Addr(), t.ID)
			}
		}
	}
	if a, b := w.a.Dump(), Load(w).Dump(); !reflect.DeepEqual(a, b) {
		r.Fatalf("followed to\n%v\nbut the state is\n%v", a, b)
	}
}
