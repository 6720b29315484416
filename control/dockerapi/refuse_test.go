package dockerapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// refusal is one row: what is asked, and the answer that Docker gives.
type refusal struct {
	name         string
	method, path string
	body         any
	code         int
	text         string
}

func (c *cluster) refuses(rows []refusal) {
	c.Helper()
	for _, row := range rows {
		before := c.store.View().Index()
		code, body := c.do(row.method, row.path, row.body)
		var e common.ErrorResponse
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			c.Errorf("%s: %v: %d %q", row.name, err, code, body)
			continue
		}
		if code != row.code || e.Message != row.text {
			c.Errorf("%s:\n got %d %q\nwant %d %q", row.name, code, e.Message, row.code, row.text)
		}
		if c.store.View().Index() != before {
			c.Errorf("%s: something was written", row.name)
		}
	}
}

func TestNodeThatIsNoManager(t *testing.T) {
	c := newCluster(t)
	routes := []string{"GET /swarm", "GET /nodes", "GET /nodes/x", "GET /services", "POST /services/create",
		"GET /services/x", "DELETE /services/x", "GET /tasks", "GET /tasks/x", "GET /secrets", "GET /configs",
		"POST /swarm/update", "GET /swarm/unlockkey", "POST /nodes/x/update", "DELETE /nodes/x", "POST /services/x/update"}
	for _, state := range []struct {
		local swarm.LocalNodeState
		text  string
	}{
		{swarm.LocalNodeStateInactive, textNoSwarm}, {swarm.LocalNodeStateActive, textWorker},
		{swarm.LocalNodeStateLocked, textLocked}, {swarm.LocalNodeStatePending, textStarting},
	} {
		c.become(state.local, false)
		var rows []refusal
		for _, route := range routes {
			method, path, _ := strings.Cut(route, " ")
			rows = append(rows, refusal{string(state.local) + " " + route, method, path, nil, 503, state.text})
		}
		rows = append(rows, refusal{"network create", "POST", "/networks/create", network.CreateRequest{Name: "nn", Driver: "overlay"}, 403, state.text})
		c.refuses(rows)
		var local []network.Summary
		if c.get("/networks", &local); len(local) != 1 || local[0].Name != "bridge" {
			t.Errorf("%s: networks %v", state.local, local)
		}
	}
}

func TestSwarmRefusals(t *testing.T) {
	c := newCluster(t)
	initBody := swarm.InitRequest{ListenAddr: "0.0.0.0:2377"}
	joinBody := swarm.JoinRequest{ListenAddr: "0.0.0.0:2377", RemoteAddrs: []string{"10.77.0.1:2377"}, JoinToken: "nonsense"}
	c.refuses([]refusal{
		{"leave when inactive", "POST", "/swarm/leave", nil, 503, "This node is not part of a swarm"},
		{"wrong token", "POST", "/swarm/join", joinBody, 500, "invalid join token"},
		{"no remote", "POST", "/swarm/join", swarm.JoinRequest{ListenAddr: "0.0.0.0:2377"}, 400, "at least 1 RemoteAddr is required to join"},
		{"no listen address", "POST", "/swarm/init", swarm.InitRequest{}, 400, `invalid ListenAddr "": invalid empty address`},
		{"other name", "POST", "/swarm/init", `{"ListenAddr":"a:1","Spec":{"Name":"x"}}`, 400, `swarm spec must be named "default"`},
		{"bad port", "POST", "/swarm/init", `{"ListenAddr":"a:1","DataPathPort":80}`, 400, "Datapath port number is not in valid range (1024-49151) : 80"},
		{"autolock", "POST", "/swarm/init", `{"ListenAddr":"a:1","AutoLockManagers":true}`, 501, "locking managers (autolock) is not supported by this version"},
		{"overlapping pools", "POST", "/swarm/init", `{"ListenAddr":"a:1","DefaultAddrPool":["10.0.0.0/8","10.1.0.0/16"]}`, 400, "address pools 10.0.0.0/8 and 10.1.0.0/16 overlap"},
		{"force-new-cluster", "POST", "/swarm/init", `{"ListenAddr":"a:1","ForceNewCluster":true}`, 501, "--force-new-cluster is not supported by this version: a swarm that has lost its quorum is back when enough of its managers are, with the state directories that they had or that were restored from a backup"},
		{"unlock outside", "POST", "/swarm/unlock", `{"UnlockKey":"x"}`, 503, textNoSwarm},
	})
	if code, body := c.do("POST", "/swarm/init", initBody); code != 200 || body != fmt.Sprintf("%q\n", c.Info().NodeID) {
		t.Fatalf("init: %d %s", code, body)
	}
	c.refuses([]refusal{
		{"init twice", "POST", "/swarm/init", initBody, 503, textPart},
		{"join twice", "POST", "/swarm/join", joinBody, 503, textPart},
		{"unlock", "POST", "/swarm/unlock", `{"UnlockKey":"x"}`, 409, "swarm is not locked"},
		{"last manager leaves", "POST", "/swarm/leave", nil, 503, "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "},
		{"no version", "POST", "/swarm/update", `{"Name":"default"}`, 400, `invalid swarm version '': strconv.ParseUint: parsing "": invalid syntax`},
		{"old version", "POST", "/swarm/update?version=0", `{"Name":"default"}`, 500, textOldWrite},
		{"future version", "POST", "/swarm/update?version=99", `{"Name":"default"}`, 500, textOldWrite},
		{"short certificates", "POST", "/swarm/update?version=1", `{"Name":"default","CAConfig":{"NodeCertExpiry":1000}}`, 400, "minimum certificate expiry time is: 1h0m0s"},
		{"bad rotation", "POST", "/swarm/update?version=1&rotateWorkerToken=maybe", `{"Name":"default"}`, 400, "invalid value for rotateWorkerToken: maybe"},
		{"root rotation", "POST", "/swarm/update?version=1", `{"Name":"default","CAConfig":{"ForceRotate":1}}`, 501, "rotating the certificate authority is not supported by this version"},
	})
	c.addNode("h2", swarm.NodeRoleManager, swarm.NodeStateReady)
	_, body := c.do("POST", "/swarm/leave", nil)
	if !strings.Contains(body, "Removing this node leaves 1 managers out of 2. Without a Raft quorum") {
		t.Errorf("one of two managers leaves: %s", body)
	}
	if code, body := c.do("POST", "/swarm/leave?force=1", nil); code != 200 || body != "" {
		t.Errorf("forced leave: %d %s", code, body)
	}
}

func TestServiceRefusals(t *testing.T) {
	c := newManager(t)
	second := time.Second
	c.createNetwork("app")
	c.create(spec("dup"))
	web := c.create(spec("web", publish(swarm.PortConfig{TargetPort: 80, PublishedPort: 8080})))
	c.create(spec("host", publish(swarm.PortConfig{TargetPort: 80, PublishedPort: 9090, PublishMode: "host"})))
	row := func(name string, code int, text string, edit ...func(*swarm.ServiceSpec)) refusal {
		return refusal{name, "POST", "/services/create", spec("new", edit...), code, text}
	}
	port := func(p uint32, mode string) swarm.PortConfig {
		return swarm.PortConfig{TargetPort: 80, PublishedPort: p, PublishMode: swarm.PortConfigPublishMode(mode)}
	}
	task := func(edit func(*swarm.TaskSpec)) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { edit(&s.TaskTemplate) }
	}
	container := func(edit func(*swarm.ContainerSpec)) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { edit(s.TaskTemplate.ContainerSpec) }
	}
	mode := func(edit func(*swarm.ServiceMode)) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { edit(&s.Mode) }
	}
	negative := -second
	c.refuses([]refusal{
		{"name taken", "POST", "/services/create", spec("dup"), 409, "name conflicts with an existing object: service dup already exists"},
		{"name invalid", "POST", "/services/create", spec("a b"), 400, "name must be valid as a DNS name component"},
		{"name long", "POST", "/services/create", spec(strings.Repeat("a", 64)), 400, "name must be 63 characters or fewer"},
		{"no body", "POST", "/services/create", nil, 400, "invalid JSON: got EOF while reading request body"},
		{"not JSON", "POST", "/services/create", "{", 400, "invalid JSON: unexpected EOF"},
		{"two bodies", "POST", "/services/create", "{} {}", 400, "unexpected content after JSON"},
		row("port taken", 400, fmt.Sprintf("port '8080' is already in use by service 'web' (%s) as an ingress port", web), publish(port(8080, "ingress"))),
		row("host port of mesh port", 400, fmt.Sprintf("port '8080' is already in use by service 'web' (%s) as an ingress port", web), publish(port(8080, "host"))),
		row("mesh port of host port", 400, fmt.Sprintf("port '9090' is already in use by service 'host' (%s) as a host-published port", c.store.View().ServiceByName("host").ID), publish(port(9090, "ingress"))),
		row("port twice", 400, "EndpointSpec: duplicate published ports provided", publish(port(1, ""), port(1, "host"))),
		row("dnsrr in the mesh", 400, "EndpointSpec: port published with ingress mode can't be used with dnsrr mode", publish(port(7070, "")), func(s *swarm.ServiceSpec) { s.EndpointSpec.Mode = "dnsrr" }),
		row("resolution mode", 400, `invalid resolution mode: "x"`, publish(), func(s *swarm.ServiceSpec) { s.EndpointSpec.Mode = "x" }),
		row("protocol", 400, `invalid protocol of port 80: "bogus"`, publish(swarm.PortConfig{TargetPort: 80, Protocol: "bogus"})),
		row("publish mode", 400, `invalid publish mode of port 80: "some"`, publish(port(0, "some"))),
		row("port above 65535", 400, "EndpointSpec: invalid port: target 80, published 65536", publish(port(65536, ""))),
		row("target above 65535", 400, "EndpointSpec: invalid port: target 65536, published 0", publish(swarm.PortConfig{TargetPort: 65536, PublishMode: "host"})),
		row("network bridge", 501, "services on the network bridge are not supported by this version: "+
			"leave out --network bridge, a service without networks has its tasks on a bridge of their node, with a way to the outside", attach("bridge")),
		row("unknown network", 500, "network nope not found", attach("nope")),
		row("ingress network", 400, `Service cannot be explicitly attached to the ingress network "ingress"`, attach("ingress")),
		row("constraint", 500, "constraint expected one operator from ==, !=", task(func(t *swarm.TaskSpec) { t.Placement = &swarm.Placement{Constraints: []string{"node.role=manager"}} })),
		row("no image", 400, "ContainerSpec: image reference must be provided", container(func(c *swarm.ContainerSpec) { c.Image = "" })),
		row("bad image", 400, `ContainerSpec: "A B" is not a valid repository/tag`, container(func(c *swarm.ContainerSpec) { c.Image = "A B" })),
		row("no container", 400, "mismatched Runtime and *Spec fields", task(func(t *swarm.TaskSpec) { t.ContainerSpec = nil })),
		row("attachment", 500, `invalid task spec: spec type "attachment" not supported`, task(func(t *swarm.TaskSpec) { t.Runtime = "attachment" })),
		row("two modes", 400, "must specify only one service mode", mode(func(m *swarm.ServiceMode) {
			m.Global, m.Replicated = &swarm.GlobalService{}, &swarm.ReplicatedService{}
		})),
		row("job", 501, "services of mode replicated-job are not supported by this version", mode(func(m *swarm.ServiceMode) { m.ReplicatedJob = &swarm.ReplicatedJob{} })),
		row("global job", 501, "services of mode global-job are not supported by this version", mode(func(m *swarm.ServiceMode) { m.GlobalJob = &swarm.GlobalJob{} })),
		row("negative replicas", 400, "Number of replicas must be non-negative", mode(func(m *swarm.ServiceMode) { n := ^uint64(0); m.Replicated = &swarm.ReplicatedService{Replicas: &n} })),
		row("cpu", 400, "invalid cpu value 1e-05: Must be at least 0.001", task(func(t *swarm.TaskSpec) {
			t.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{NanoCPUs: 10000}}
		})),
		row("memory", 400, "invalid memory value -1: Must be at least 4MiB", task(func(t *swarm.TaskSpec) {
			t.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{MemoryBytes: -1}}
		})),
		row("generic resources", 501, "reservations of generic resources are not supported by this version", task(func(t *swarm.TaskSpec) {
			t.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{GenericResources: []swarm.GenericResource{{}}}}
		})),
		row("restart delay", 400, "TaskSpec: restart-delay cannot be negative", task(func(t *swarm.TaskSpec) { t.RestartPolicy = &swarm.RestartPolicy{Delay: &negative} })),
		row("restart condition", 400, `invalid RestartCondition: "often"`, task(func(t *swarm.TaskSpec) { t.RestartPolicy = &swarm.RestartPolicy{Condition: "often"} })),
		row("mount type", 400, `invalid MountType: "image"`, container(func(c *swarm.ContainerSpec) { c.Mounts = []mount.Mount{{Type: "image", Target: "/a"}} })),
		row("mount twice", 400, "ContainerSpec: duplicate mount point: /a", container(func(c *swarm.ContainerSpec) {
			c.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/a"}, {Type: "volume", Target: "/a"}}
		})),
		row("update action", 400, "unrecognized update failure action panic", func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{FailureAction: "panic"} }),
		row("update order", 400, "unrecognized update order up", func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{Order: "up"} }),
		row("update delay", 400, "TaskSpec: update-delay cannot be negative", func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{Delay: -1} }),
		row("failure ratio", 400, "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1", func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{MaxFailureRatio: 2} }),
		row("secret", 501, "services with secrets or configs are not supported by this version: secret s1", container(func(c *swarm.ContainerSpec) { c.Secrets = []*swarm.SecretReference{{SecretName: "s1"}} })),
	})
}

func TestServiceUpdateRefusals(t *testing.T) {
	c := newManager(t)
	c.createNetwork("app")
	dup := c.create(spec("dup"))
	global := spec("dup", func(s *swarm.ServiceSpec) { s.Mode.Global = &swarm.GlobalService{} })
	c.refuses([]refusal{
		{"inspect unknown", "GET", "/services/nope", nil, 404, "service nope not found"},
		{"remove unknown", "DELETE", "/services/nope", nil, 404, "service nope not found"},
		{"update unknown", "POST", "/services/nope/update?version=1", spec("nope"), 404, "service nope not found"},
		{"update without version", "POST", "/services/dup/update", spec("dup"), 400, `invalid service version '': strconv.ParseUint: parsing "": invalid syntax`},
		{"stale update", "POST", "/services/dup/update?version=1", spec("dup"), 500, textOldWrite},
		{"rename", "POST", "/services/dup/update?version=3", spec("other"), 501, "renaming services is not supported"},
		{"mode change", "POST", "/services/dup/update?version=3", global, 501, "service mode change is not allowed"},
		{"rollback", "POST", "/services/dup/update?version=3&rollback=previous", spec("dup"), 400, "service dup does not have a previous spec"},
		{"rollback option", "POST", "/services/dup/update?version=3&rollback=next", spec("dup"), 500, "unrecognized rollback option next"},
		{"credentials", "POST", "/services/dup/update?version=3&registryAuthFrom=x", spec("dup"), 500, "unsupported registryAuthFrom value"},
		{"filter", "GET", `/services?filters={"foo":{"v":true}}`, nil, 400, "invalid filter 'foo'"},
		{"filter text", "GET", `/services?filters=[`, nil, 400, "invalid filter"},
	})
	if v := c.store.View().Service(dup).Version.Index; v != 3 {
		t.Fatalf("the versions of this table are wrong: %d", v)
	}
}

func TestOtherRefusals(t *testing.T) {
	c := newManager(t)
	app := c.createNetwork("app")
	web := c.create(spec("web", attach("app"), publish(swarm.PortConfig{TargetPort: 80, PublishedPort: 8080})))
	c.do("POST", "/networks/create", `{"Name":"wide","Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.9.0.0/16"}]}}`)
	worker := c.addNode("h2", swarm.NodeRoleWorker, swarm.NodeStateReady)
	self := c.self()
	ingress := c.store.View().NetworkByName("ingress")
	c.addTask(web, self.ID, 1)
	nodeSpec := swarm.NodeSpec{Role: swarm.NodeRoleWorker, Availability: swarm.NodeAvailabilityActive}
	update := func(n *api.Node) string {
		return fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index)
	}
	c.refuses([]refusal{
		{"ready node", "DELETE", "/nodes/h2", nil, 400, "node " + worker.ID + " is not down and can't be removed"},
		{"manager", "DELETE", "/nodes/h1?force=1", nil, 400, "node " + self.ID + " is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"},
		{"demote last", "POST", update(self), nodeSpec, 400, "attempting to demote the last manager of the swarm"},
		{"role", "POST", update(worker), swarm.NodeSpec{Role: "boss", Availability: "active"}, 400, `invalid Role: "boss"`},
		{"availability", "POST", update(worker), swarm.NodeSpec{Role: "worker", Availability: "gone"}, 400, `invalid Availability: "gone"`},
		{"stale node", "POST", "/nodes/h2/update?version=1", nodeSpec, 500, textOldWrite},
		{"unknown node", "GET", "/nodes/nope", nil, 404, "node nope not found"},
		{"unknown node updated", "POST", "/nodes/nope/update?version=1", nodeSpec, 404, "node nope not found"},
		{"unknown task", "GET", "/tasks/nope", nil, 404, "task nope not found"},
		{"tasks of unknown service", "GET", `/tasks?filters={"service":{"nope":true}}`, nil, 404, "service nope not found"},
		{"tasks of unknown node", "GET", `/tasks?filters={"node":["nope"]}`, nil, 404, "node nope not found"},
		{"task filter", "GET", `/tasks?filters={"color":["red"]}`, nil, 400, "invalid filter 'color'"},
		{"unknown network", "GET", "/networks/nope", nil, 404, "network nope not found"},
		{"unknown network removed", "DELETE", "/networks/nope", nil, 404, "network nope not found"},
		{"network exists", "POST", "/networks/create", network.CreateRequest{Name: "app", Driver: "overlay"}, 409, "network with name app already exists"},
		{"network in use", "DELETE", "/networks/" + app, nil, 400, "network app is in use by service web"},
		{"ingress in use", "DELETE", "/networks/ingress", nil, 400, "ingress network cannot be removed because service web depends on it"},
		{"second ingress", "POST", "/networks/create", network.CreateRequest{Name: "i2", Driver: "overlay", Ingress: true}, 409, "ingress network (" + ingress.ID + ") is already present"},
		{"attachable ingress", "POST", "/networks/create", network.CreateRequest{Name: "i2", Driver: "overlay", Ingress: true, Attachable: true}, 400, "ingress network cannot be attachable"},
		{"config-only", "POST", "/networks/create", network.CreateRequest{Name: "x", ConfigOnly: true}, 501, "config-only networks are not supported by this version"},
		{"made from another", "POST", "/networks/create", `{"Name":"x","Driver":"overlay","ConfigFrom":{"Network":"y"}}`, 501, "config-only networks are not supported by this version"},
		{"no identifier", "POST", "/networks/create", `{"Name":"x","Options":{"` + vniOption + `":"nonsense"}}`, 400, `network x: "nonsense" is no VXLAN identifier`},
		{"predefined", "POST", "/networks/create", network.CreateRequest{Name: "bridge", Driver: "overlay"}, 403, "bridge is a pre-defined network and cannot be created"},
		{"predefined removed", "DELETE", "/networks/bridge", nil, 403, "bridge is a pre-defined network and cannot be removed"},
		{"driver", "POST", "/networks/create", network.CreateRequest{Name: "x", Driver: "bridge"}, 501, `networks of driver "bridge" are not supported by this version: only overlay networks can be created`},
		{"range", "POST", "/networks/create", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.1.0.0/24","IPRange":"10.2.0.0/25"}]}}`, 400, "invalid network config: range 10.2.0.0/25 is outside of subnet 10.1.0.0/24"},
		{"gateway", "POST", "/networks/create", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.1.0.0/24","Gateway":"10.2.0.1"}]}}`, 400, "no matching subnet for gateway 10.2.0.1"},
		{"neither family", "POST", "/networks/create", `{"Name":"x","EnableIPv4":false}`, 400, "IPv4 or IPv6 must be enabled"},
		{"without IPv4", "POST", "/networks/create", `{"Name":"x","EnableIPv4":false,"EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"10.1.0.0/24"}]}}`, 400,
			"invalid network config: network x is without IPv4, but names the IPv4 subnet 10.1.0.0/24"},
		{"link-local", "POST", "/networks/create", `{"Name":"x","IPAM":{"Config":[{"Subnet":"fe80::/64"}]}}`, 400,
			"invalid network config: subnet fe80::/64 of network x is not one that tasks can have addresses of"},
		{"overlap", "POST", "/networks/create", `{"Name":"x","IPAM":{"Config":[{"Subnet":"10.9.0.0/25"}]}}`, 403, "invalid pool request: Pool overlaps with other one on this address space"},
		{"secret", "POST", "/secrets/create", `{"Name":"s"}`, 501, "secrets are not supported by this version"},
		{"config", "POST", "/configs/create", `{"Name":"s"}`, 501, "configs are not supported by this version"},
		{"unknown secret", "GET", "/secrets/nope", nil, 404, "secret nope not found"},
		{"unknown route", "GET", "/v1.41/nope", nil, 404, "page not found"},
		{"unknown method", "PUT", "/services", nil, 404, "page not found"},
		{"too new", "GET", "/v1.60/services", nil, 400, "client version 1.60 is too new. Maximum supported API version is 1.47"},
		{"too old", "GET", "/v1.12/services", nil, 400, "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
	})
	if code, body := c.do("GET", "/secrets", nil); code != http.StatusOK || body != "[]\n" {
		t.Errorf("secrets: %d %s", code, body)
	}
}
