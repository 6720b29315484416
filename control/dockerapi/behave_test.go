package dockerapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func replicas(n uint64) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) { s.Mode.Replicated = &swarm.ReplicatedService{Replicas: &n} }
}

func (c *cluster) service(ref string) swarm.Service {
	c.Helper()
	var s swarm.Service
	c.get("/services/"+ref, &s)
	return s
}

func TestCreateNormalises(t *testing.T) {
	c := newManager(t)
	app := c.createNetwork("app")
	id := c.create(spec("web", attach("app"), publish(swarm.PortConfig{TargetPort: 80})))
	s := c.store.View().Service(id)
	if got := s.Spec.TaskTemplate.Networks[0].Target; got != app {
		t.Errorf("network stored as %q, want its id %q", got, app)
	}
	if s.Spec.Mode.Replicated == nil || *s.Spec.Mode.Replicated.Replicas != 1 {
		t.Errorf("mode %+v, want one replica", s.Spec.Mode)
	}
	want := swarm.PortConfig{Protocol: network.TCP, TargetPort: 80, PublishMode: "ingress"}
	if s.Spec.EndpointSpec.Mode != "vip" || s.Spec.EndpointSpec.Ports[0] != want {
		t.Errorf("endpoint %+v", s.Spec.EndpointSpec)
	}
	if s.Spec.TaskTemplate.Runtime != swarm.RuntimeContainer || s.SpecVersion != s.Version {
		t.Errorf("runtime %q, spec version %v of %v", s.Spec.TaskTemplate.Runtime, s.SpecVersion, s.Version)
	}
}

func TestServicesWithoutNameGetOne(t *testing.T) {
	c := newManager(t)
	seen := map[string]bool{}
	for range 40 {
		id := c.create(spec(""))
		name := c.store.View().Service(id).Spec.Name
		if err := checkName(name); err != nil || seen[name] {
			t.Fatalf("%q: %v", name, err)
		}
		seen[name] = true
	}
}

func TestOldClientsPutNetworksBesideTheTemplate(t *testing.T) {
	c := newManager(t)
	app := c.createNetwork("app")
	code, body := c.do("POST", "/v1.24/services/create", `{"Name":"old","TaskTemplate":{"ContainerSpec":{"Image":"x","Sysctls":{"a":"b"}}},"Networks":[{"Target":"app"}]}`)
	if code != http.StatusCreated {
		t.Fatalf("%d %s", code, body)
	}
	s := c.store.View().ServiceByName("old")
	if s.Spec.TaskTemplate.Networks[0].Target != app || s.Spec.TaskTemplate.ContainerSpec.Sysctls != nil {
		t.Errorf("stored %+v", s.Spec.TaskTemplate)
	}
}

func TestUpdateKeepsPreviousAndRollsBack(t *testing.T) {
	c := newManager(t)
	id := c.create(spec("web", replicas(2)))
	first := c.service("web")
	update := func(query string, s swarm.ServiceSpec) (int, string) {
		return c.do("POST", "/services/"+id+"/update?"+query, s)
	}
	code, body := update(fmt.Sprintf("version=%d&registryAuthFrom=spec", first.Version.Index), spec("web", replicas(5)))
	if code != 200 || body != `{"Warnings":null}`+"\n" {
		t.Fatalf("update: %d %s", code, body)
	}
	second := c.service("web")
	if *second.Spec.Mode.Replicated.Replicas != 5 || *second.PreviousSpec.Mode.Replicated.Replicas != 2 || second.UpdateStatus != nil {
		t.Errorf("after update: %+v", second)
	}
	// A planner writes; the user's version is older than the object but not than its spec.
	s := c.store.View().Service(id).Copy()
	s.UpdateStatus = &swarm.UpdateStatus{State: swarm.UpdateStateCompleted}
	c.commit(api.Update(s))
	if code, body := update(fmt.Sprintf("version=%d&rollback=previous", second.Version.Index), second.Spec); code != 200 {
		t.Fatalf("rollback: %d %s", code, body)
	}
	third := c.service("web")
	if *third.Spec.Mode.Replicated.Replicas != 2 || *third.PreviousSpec.Mode.Replicated.Replicas != 5 ||
		third.UpdateStatus == nil || third.UpdateStatus.State != swarm.UpdateStateRollbackStarted {
		t.Errorf("after rollback: %+v", third)
	}
	// Whoever read the service before the rollback is too late.
	if code, _ := update(fmt.Sprintf("version=%d", second.Version.Index), spec("web", replicas(9))); code != 500 {
		t.Errorf("stale update answered %d", code)
	}
}

func TestUpdateTriesAgainWhenAPlannerWasFaster(t *testing.T) {
	c := newManager(t)
	id := c.create(spec("web"))
	version := c.service(id).Version.Index
	c.interfere = func() {
		s := c.store.View().Service(id).Copy()
		s.Endpoint.Ports = []swarm.PortConfig{{TargetPort: 80}}
		c.commit(api.Update(s))
	}
	if code, body := c.do("POST", fmt.Sprintf("/services/web/update?version=%d", version), spec("web", replicas(3))); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	s := c.store.View().Service(id)
	if *s.Spec.Mode.Replicated.Replicas != 3 || len(s.Endpoint.Ports) != 1 {
		t.Errorf("one of both writes is lost: %+v", s)
	}
}

func TestUpdateLosesAgainstAnotherUser(t *testing.T) {
	c := newManager(t)
	id := c.create(spec("web"))
	version := c.service(id).Version.Index
	c.interfere = func() {
		s := c.store.View().Service(id).Copy()
		*s.Spec.Mode.Replicated.Replicas = 7
		c.commit(api.Update(s))
	}
	code, body := c.do("POST", fmt.Sprintf("/services/web/update?version=%d", version), spec("web", replicas(3)))
	if code != 500 || !strings.Contains(body, textOldWrite) {
		t.Errorf("%d %s", code, body)
	}
}

// TestUpdateOfWhatReports: nodes report and the leader changes keys between a user's
// reading and writing, which is no reason to refuse; another user's change is.
func TestUpdateOfWhatReports(t *testing.T) {
	c := newManager(t)
	n := c.addNode("h2", swarm.NodeRoleWorker, swarm.NodeStateReady)
	update := func(what, version string, body any) int {
		code, _ := c.do("POST", what+"/update?version="+version, body)
		return code
	}
	node, swarmAt := fmt.Sprint(n.Version.Index), fmt.Sprint(c.store.View().Cluster().Version.Index)
	report := n.Copy()
	report.Status.Message = "back"
	cluster := c.store.View().Cluster().Copy()
	cluster.GossipKeys = append(cluster.GossipKeys, make([]byte, 32))
	c.commit(api.Status(report), api.Update(cluster))
	spec := n.Spec
	spec.Labels = map[string]string{"zone": "moon"}
	if code := update("/nodes/h2", node, spec); code != 200 {
		t.Errorf("a node that has reported: %d", code)
	}
	if code := update("/nodes/h2", node, n.Spec); code != 500 {
		t.Errorf("a node that somebody else has changed: %d", code)
	}
	changed := cluster.Spec
	changed.Labels = map[string]string{"a": "b"}
	if code := update("/swarm", swarmAt, changed); code != 200 {
		t.Errorf("a swarm with new keys: %d", code)
	}
	if code := update("/swarm", swarmAt, cluster.Spec); code != 500 {
		t.Errorf("a swarm that somebody else has changed: %d", code)
	}
	v := c.store.View()
	if got := v.Node(n.ID); got.Spec.Labels["zone"] != "moon" || got.Status.Message != "back" {
		t.Errorf("one of both writes to the node is lost: %+v", got)
	}
	if got := v.Cluster(); got.Spec.Labels["a"] != "b" || len(got.GossipKeys) != len(cluster.GossipKeys) {
		t.Errorf("one of both writes to the swarm is lost: %+v", got)
	}
}

func TestUpdateWaitsForAVersionFromAnotherManager(t *testing.T) {
	c := newManager(t)
	id := c.create(spec("web"))
	ahead := c.store.View().Index() + 1
	done := make(chan int)
	go func() {
		code, _ := c.do("POST", fmt.Sprintf("/services/web/update?version=%d", ahead), spec("web", replicas(3)))
		done <- code
	}()
	s := c.store.View().Service(id).Copy()
	s.Endpoint.Ports = []swarm.PortConfig{{TargetPort: 80}}
	c.commit(api.UpdateAnyway(s))
	if code := <-done; code != 200 {
		t.Errorf("update answered %d", code)
	}
}

func TestServiceStatusOnlyWhenAskedFor(t *testing.T) {
	c := newManager(t)
	id := c.create(spec("web", replicas(3)))
	global := c.create(spec("agent", func(s *swarm.ServiceSpec) { s.Mode.Global = &swarm.GlobalService{} }))
	c.addTask(id, c.self().ID, 1)
	c.addTask(id, c.self().ID, 2, func(t *api.Task) { t.Status.State = swarm.TaskStatePreparing })
	c.addTask(global, c.self().ID, 0)
	var list []swarm.Service
	if body := c.get("/services", &list); strings.Contains(body, "ServiceStatus") {
		t.Errorf("status without asking: %s", body)
	}
	if body := c.get("/v1.40/services?status=true", &list); strings.Contains(body, "ServiceStatus") {
		t.Errorf("status for a client that does not know it: %s", body)
	}
	list = nil
	c.get("/services?status=true", &list)
	if len(list) != 2 || list[0].Spec.Name != "agent" || *list[0].ServiceStatus != (swarm.ServiceStatus{RunningTasks: 1, DesiredTasks: 1}) ||
		*list[1].ServiceStatus != (swarm.ServiceStatus{RunningTasks: 1, DesiredTasks: 3}) {
		t.Errorf("list %+v", list)
	}
}

func TestInsertDefaults(t *testing.T) {
	c := newManager(t)
	c.create(spec("web"))
	plain := c.service("web")
	if plain.Spec.UpdateConfig != nil || plain.Spec.TaskTemplate.RestartPolicy != nil {
		t.Errorf("defaults without asking: %+v", plain.Spec)
	}
	full := c.service("web?insertDefaults=true").Spec
	u := full.UpdateConfig
	if u == nil || u.Parallelism != 1 || u.Monitor != 5*time.Second || u.FailureAction != "pause" || u.Order != "stop-first" ||
		*full.TaskTemplate.ContainerSpec.StopGracePeriod != 10*time.Second || *full.TaskTemplate.RestartPolicy.Delay != 5*time.Second ||
		full.EndpointSpec.Mode != "vip" || full.TaskTemplate.Resources == nil || full.TaskTemplate.Placement == nil {
		raw, _ := json.Marshal(full)
		t.Errorf("defaults: %s", raw)
	}
	if again := c.service("web"); again.Spec.UpdateConfig != nil {
		t.Error("showing defaults changed the stored spec")
	}
}

func TestTaskFilters(t *testing.T) {
	c := newManager(t)
	web := c.create(spec("web", replicas(2), func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"a": "1"} }))
	db := c.create(spec("db"))
	h2 := c.addNode("h2", swarm.NodeRoleWorker, swarm.NodeStateReady)
	one := c.addTask(web, c.self().ID, 1)
	c.addTask(web, h2.ID, 2, func(t *api.Task) { t.DesiredState = swarm.TaskStateShutdown })
	c.addTask(db, h2.ID, 1)
	for filter, want := range map[string]int{
		``: 3, `{"service":{"web":true}}`: 2, `{"service":["web","db"]}`: 3, `{"node":{"h2":true}}`: 2,
		`{"node":{"h2":true},"service":{"web":true}}`: 1, `{"desired-state":{"running":true}}`: 2, `{"desired-state":["RUNNING","shutdown"]}`: 3,
		`{"name":{"web.1":true}}`: 1, `{"id":{"` + one.ID[:6] + `":true}}`: 1, `{"label":{"a=1":true}}`: 2, `{"label":{"a=2":true}}`: 0,
		`{"runtime":{"container":true}}`: 3, `{"runtime":{"plugin":true}}`: 0, `{"service":{"web":true},"_up-to-date":{"true":true}}`: 2,
	} {
		var got []swarm.Task
		c.get("/tasks?filters="+filter, &got)
		if len(got) != want {
			t.Errorf("%s: %d tasks, want %d", filter, len(got), want)
		}
		if !slices.IsSortedFunc(got, func(a, b swarm.Task) int { return strings.Compare(a.ID, b.ID) }) {
			t.Errorf("%s: not sorted", filter)
		}
	}
	// After an update of the image the old tasks are not up to date any more.
	version := c.service("web").Version.Index
	c.do("POST", fmt.Sprintf("/services/web/update?version=%d", version), spec("web", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "x:2" }))
	var got []swarm.Task
	if c.get(`/tasks?filters={"service":{"web":true},"_up-to-date":{"true":true}}`, &got); len(got) != 0 {
		t.Errorf("%d old tasks count as up to date", len(got))
	}
	var byName swarm.Task
	if c.get("/tasks/web.1."+one.ID, &byName); byName.ID != one.ID {
		t.Errorf("task by name: %s", byName.ID)
	}
}

func TestNodeUpdateAndRemoval(t *testing.T) {
	c := newManager(t)
	n := c.addNode("h2", swarm.NodeRoleWorker, swarm.NodeStateReady)
	web := c.create(spec("web"))
	task := c.addTask(web, n.ID, 1)
	drain := swarm.NodeSpec{Role: "worker", Availability: "drain", Annotations: swarm.Annotations{Labels: map[string]string{"x": "y"}}}
	if code, body := c.do("POST", fmt.Sprintf("/nodes/h2/update?version=%d", n.Version.Index), drain); code != 200 || body != "" {
		t.Fatalf("update: %d %s", code, body)
	}
	var list []swarm.Node
	if c.get(`/nodes?filters={"node.label":{"x=y":true},"role":["worker"]}`, &list); len(list) != 1 || list[0].Spec.Availability != "drain" {
		t.Errorf("list: %+v", list)
	}
	down := c.store.View().Node(n.ID).Copy()
	down.Status.State = swarm.NodeStateDown
	c.commit(api.Status(down))
	if code, body := c.do("DELETE", "/nodes/h2", nil); code != 200 || body != "" {
		t.Fatalf("remove: %d %s", code, body)
	}
	if c.store.View().Node(n.ID) != nil || c.store.View().Task(task.ID).Status.State != swarm.TaskStateOrphaned {
		t.Error("the node or its task is still there")
	}
}

func TestDemotion(t *testing.T) {
	c := newManager(t)
	h2 := c.addNode("h2", swarm.NodeRoleManager, swarm.NodeStateReady)
	h3 := c.addNode("h3", swarm.NodeRoleManager, swarm.NodeStateDown)
	worker := swarm.NodeSpec{Role: "worker", Availability: "active"}
	code, body := c.do("POST", fmt.Sprintf("/nodes/h2/update?version=%d", h2.Version.Index), worker)
	if code != 400 || !strings.Contains(body, "loss of quorum") {
		t.Errorf("demote one of two that are left of three: %d %s", code, body)
	}
	if code, body := c.do("POST", fmt.Sprintf("/nodes/h3/update?version=%d", h3.Version.Index), worker); code != 200 {
		t.Errorf("demote the dead one: %d %s", code, body)
	}
	if code, body := c.do("POST", fmt.Sprintf("/nodes/h2/update?version=%d", h2.Version.Index), worker); code != 200 {
		t.Errorf("demote one of two: %d %s", code, body)
	}
}

func TestSwarmUpdateRotatesTokens(t *testing.T) {
	c := newManager(t)
	var before, after swarm.Swarm
	c.get("/swarm", &before)
	if strings.Contains(c.get("/swarm", &before), "CAKey") {
		t.Error("the key of the authority is shown")
	}
	spec := before.Spec
	spec.Orchestration.TaskHistoryRetentionLimit = nil
	code, body := c.do("POST", fmt.Sprintf("/swarm/update?version=%d&rotateWorkerToken=true&rotateManagerToken=false", before.Version.Index), spec)
	if code != 200 || body != "" {
		t.Fatalf("%d %s", code, body)
	}
	c.get("/swarm", &after)
	if after.JoinTokens.Worker == before.JoinTokens.Worker || after.JoinTokens.Manager != before.JoinTokens.Manager {
		t.Errorf("tokens %+v → %+v", before.JoinTokens, after.JoinTokens)
	}
	if after.JoinTokens.Worker[:60] != before.JoinTokens.Worker[:60] {
		t.Error("the new token pins another root")
	}
	if *after.Spec.Orchestration.TaskHistoryRetentionLimit != 5 {
		t.Error("an empty field is not the default")
	}
}

func TestNetworks(t *testing.T) {
	c := newManager(t)
	id := c.createNetwork("app")
	web := c.create(spec("web", attach("app"), publish(swarm.PortConfig{TargetPort: 80, PublishedPort: 8080})))
	task := c.addTask(web, c.self().ID, 1)
	s := c.store.View().Service(web).Copy()
	s.Endpoint.VirtualIPs = []swarm.EndpointVirtualIP{{NetworkID: id, Addr: netip.MustParsePrefix("10.0.1.2/24")}}
	s.Endpoint.Ports = s.Spec.EndpointSpec.Ports
	c.commit(api.Update(s))
	for filter, want := range map[string]int{
		``: 3, `{"driver":{"overlay":true}}`: 2, `{"name":{"pp":true}}`: 1, `{"scope":["local"]}`: 1,
		`{"type":["custom"]}`: 2, `{"type":["builtin"]}`: 1, `{"dangling":["true"]}`: 0, `{"dangling":["false"]}`: 3, `{"id":{"` + id[:5] + `":true}}`: 1,
	} {
		var list []network.Summary
		if c.get("/networks?filters="+filter, &list); len(list) != want {
			t.Errorf("%s: %d networks, want %d", filter, len(list), want)
		}
	}
	if code, _ := c.do("GET", "/networks/app?scope=local", nil); code != 404 {
		t.Errorf("the cluster's network in the local scope: %d", code)
	}
	var n network.Inspect
	c.get("/networks/"+id[:8]+"?verbose=true&scope=swarm", &n)
	info := n.Services["web"]
	if n.Name != "app" || len(n.Peers) != 1 || n.Peers[0].IP.String() != "10.77.0.1" || info.VIP.String() != "10.0.1.2" ||
		!slices.Equal(info.Ports, []string{"Target: 80, Publish: 8080"}) || len(info.Tasks) != 1 || info.Tasks[0].Name != taskName(task) {
		t.Errorf("inspect %+v", n)
	}
}

func TestNetworkRemovalWaitsForTasksThatLeave(t *testing.T) {
	c := newManager(t)
	id := c.createNetwork("app")
	web := c.create(spec("web", attach("app")))
	task := c.addTask(web, c.self().ID, 1)
	if code, body := c.do("DELETE", "/services/web", nil); code != 200 || body != "" {
		t.Fatalf("service rm: %d %s", code, body)
	}
	done := make(chan string, 1)
	go func() {
		code, body := c.do("DELETE", "/networks/app", nil)
		done <- fmt.Sprint(code, body)
	}()
	gone := task.Copy()
	gone.Status.State = swarm.TaskStateShutdown
	c.commit(api.Status(gone))
	if got := <-done; got != "204" {
		t.Errorf("network rm answered %s", got)
	}
	if c.store.View().Network(id) != nil {
		t.Error("the network is still there")
	}
}

func TestEvents(t *testing.T) {
	c := newManager(t)
	ctx, cancel := context.WithCancel(t.Context())
	got, ready := make(chan events.Message, 16), make(chan error, 1)
	go func() {
		ready <- c.api.Events(ctx, func(m events.Message) error { got <- m; return nil })
	}()
	// The subscription has begun once its first event arrives.
	n := c.addNode("h2", swarm.NodeRoleWorker, swarm.NodeStateReady)
	for i := 0; len(got) == 0 && i < 1000; i++ {
		up := c.store.View().Node(n.ID).Copy()
		up.Status.Message = fmt.Sprint(i)
		c.commit(api.Status(up))
		time.Sleep(time.Millisecond)
	}
	id := c.create(spec("web", replicas(2)))
	version := c.service(id).Version.Index
	c.do("POST", fmt.Sprintf("/services/web/update?version=%d", version), spec("web", replicas(3), func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "x:2" }))
	down := c.store.View().Node(n.ID).Copy()
	down.Status.State = swarm.NodeStateDown
	c.commit(api.Status(down))
	c.do("DELETE", "/services/web", nil)
	want := []struct {
		kind   events.Type
		action events.Action
		attrs  map[string]string
	}{
		{"service", "create", map[string]string{"name": "web"}},
		{"service", "update", map[string]string{"name": "web", "image.old": "shoal/whoami:latest", "image.new": "x:2", "replicas.old": "2", "replicas.new": "3"}},
		{"node", "update", map[string]string{"name": "h2", "state.old": "ready", "state.new": "down"}},
		{"service", "remove", map[string]string{"name": "web"}},
	}
	for len(want) > 0 {
		m := <-got
		if m.Type == "node" && m.Actor.Attributes["state.new"] == "" {
			continue // how the subscription was found to have begun
		}
		if m.Type != want[0].kind || m.Action != want[0].action || !maps.Equal(m.Actor.Attributes, want[0].attrs) || m.Scope != "swarm" || m.Time == 0 {
			t.Errorf("got %+v, want %+v", m, want[0])
		}
		want = want[1:]
	}
	cancel()
	if err := <-ready; err != nil {
		t.Errorf("events ended with %v", err)
	}
}

func TestPruneNetworks(t *testing.T) {
	c := newManager(t)
	c.createNetwork("used")
	c.createNetwork("idle")
	c.create(spec("web", attach("used")))
	if _, body := c.do("POST", `/networks/prune?filters={"label":{"x":true}}`, nil); body != `{"NetworksDeleted":[]}`+"\n" {
		t.Errorf("prune by a label that no network has: %s", body)
	}
	if _, body := c.do("POST", "/networks/prune", nil); body != `{"NetworksDeleted":["idle"]}`+"\n" {
		t.Errorf("prune: %s", body)
	}
	if code, _ := c.do("POST", `/networks/prune?filters={"until":{"soon":true}}`, nil); code != 400 {
		t.Errorf("bad until: %d", code)
	}
}

// Many users add one replica each, reading first and trying again when they
// were too late, while a planner writes to the same service: no addition is lost.
func TestNoUpdateIsLost(t *testing.T) {
	c := newManager(t)
	id := c.create(spec("web", replicas(0)))
	const users, rounds = 4, 5
	stop, planner := make(chan struct{}), sync.WaitGroup{}
	planner.Go(func() {
		for i := uint32(1); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			s := c.store.View().Service(id).Copy()
			s.Endpoint.Ports = []swarm.PortConfig{{TargetPort: i}}
			if err := c.Propose(t.Context(), []api.Op{api.Update(s)}); err != nil && api.KindOf(err) != api.OutOfSequence {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
	var all sync.WaitGroup
	for range users {
		all.Go(func() {
			for done := 0; done < rounds; {
				_, body := c.do("GET", "/services/web", nil)
				var s swarm.Service
				if err := json.Unmarshal([]byte(body), &s); err != nil {
					t.Error(err)
					return
				}
				*s.Spec.Mode.Replicated.Replicas++
				code, body := c.do("POST", fmt.Sprintf("/services/web/update?version=%d", s.Version.Index), s.Spec)
				if code == 200 {
					done++
				} else if !strings.Contains(body, "out of sequence") {
					t.Errorf("%d %s", code, body)
					return
				}
			}
		})
	}
	all.Wait()
	close(stop)
	planner.Wait()
	if got := *c.service("web").Spec.Mode.Replicated.Replicas; got != users*rounds {
		t.Errorf("%d replicas, want %d", got, users*rounds)
	}
}

func TestEventsFollowTheMembership(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	got, done := make(chan events.Message, 64), make(chan error, 1)
	go func() {
		done <- c.api.Events(ctx, func(m events.Message) error { got <- m; return nil })
	}()
	if _, err := c.Init(ctx, swarm.InitRequest{ListenAddr: "0.0.0.0:2377"}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for i := 0; len(got) == 0; i++ {
		c.createNetwork(fmt.Sprint("n", i))
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("no event after the node became a manager")
		}
	}
	if m := <-got; m.Type != events.NetworkEventType || m.Action != events.ActionCreate {
		t.Errorf("event %+v", m)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
