package dockerapi

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// ids and tokens are random; in the shapes they are named by their order.
var random = regexp.MustCompile(`SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}|\b[0-9a-z]{25}\b`)

func named(body string) string {
	names := map[string]string{}
	return random.ReplaceAllStringFunc(strings.TrimSpace(body), func(id string) string {
		if names[id] == "" {
			names[id] = fmt.Sprintf("<%d>", len(names)+1)
		}
		return names[id]
	})
}

// The answers byte by byte, as clients of every language read them.
func TestShapes(t *testing.T) {
	c := newManager(t)
	app := c.createNetwork("app")
	allocated := c.store.View().Network(app).Copy()
	allocated.DriverState = swarm.Driver{Name: "overlay", Options: map[string]string{"com.docker.network.driver.overlay.vxlanid_list": "4097"}}
	allocated.IPAMOptions = &swarm.IPAMOptions{Driver: swarm.Driver{Name: "default"}, Configs: []swarm.IPAMConfig{
		{Subnet: netip.MustParsePrefix("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.1")}}}
	c.commit(api.Update(allocated))
	web := c.create(spec("web", replicas(2), attach("app"), publish(swarm.PortConfig{TargetPort: 80, PublishedPort: 8080})))
	s := c.store.View().Service(web).Copy()
	s.Endpoint = swarm.Endpoint{Spec: *s.Spec.EndpointSpec, Ports: s.Spec.EndpointSpec.Ports, VirtualIPs: []swarm.EndpointVirtualIP{
		{NetworkID: app, Addr: netip.MustParsePrefix("10.0.1.2/24")}}}
	c.commit(api.Update(s))
	c.addTask(web, c.self().ID, 1, func(t *api.Task) {
		t.Status = swarm.TaskStatus{Timestamp: epoch, State: "running", Message: "started",
			ContainerStatus: &swarm.ContainerStatus{ContainerID: strings.Repeat("a", 64), PID: 7}}
		t.NetworksAttachments[0].Network.Spec.Labels = map[string]string{}
	})
	const (
		port    = `{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"ingress"}`
		ipam    = `"Configs":[{"Subnet":"10.0.1.0/24","Gateway":"10.0.1.1"}]`
		vxlan   = `{"com.docker.network.driver.overlay.vxlanid_list":"4097"}`
		network = `"Name":"app","Id":"<1>","Created":"2026-01-02T03:04:07Z","Scope":"swarm","Driver":"overlay","EnableIPv4":true,"EnableIPv6":false,` +
			`"IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"10.0.1.0/24","Gateway":"10.0.1.1"}]},"Internal":false,"Attachable":false,"Ingress":false,` +
			`"ConfigFrom":{"Network":""},"ConfigOnly":false,"Options":` + vxlan + `,"Labels":{}`
	)
	for path, want := range map[string]string{
		"/services/web": `{"ID":"<1>","Version":{"Index":5},"CreatedAt":"2026-01-02T03:04:09Z","UpdatedAt":"2026-01-02T03:04:10Z",` +
			`"Spec":{"Name":"web","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":"shoal/whoami:latest"},"Networks":[{"Target":"<2>"}],"ForceUpdate":0,"Runtime":"container"},` +
			`"Mode":{"Replicated":{"Replicas":2}},"EndpointSpec":{"Mode":"vip","Ports":[` + port + `]}},` +
			`"Endpoint":{"Spec":{"Mode":"vip","Ports":[` + port + `]},"Ports":[` + port + `],"VirtualIPs":[{"NetworkID":"<2>","Addr":"10.0.1.2/24"}]}}`,
		"/tasks": `[{"ID":"<1>","Version":{"Index":6},"CreatedAt":"2026-01-02T03:04:11Z","UpdatedAt":"2026-01-02T03:04:11Z","Labels":{},` +
			`"Spec":{"ContainerSpec":{"Image":"shoal/whoami:latest"},"Networks":[{"Target":"<2>"}],"ForceUpdate":0,"Runtime":"container"},` +
			`"ServiceID":"<3>","Slot":1,"NodeID":"<4>","Status":{"Timestamp":"2026-01-02T03:04:05Z","State":"running","Message":"started",` +
			`"ContainerStatus":{"ContainerID":"` + strings.Repeat("a", 64) + `","PID":7,"ExitCode":0},"PortStatus":{}},"DesiredState":"running",` +
			`"NetworksAttachments":[{"Network":{"ID":"<2>","Version":{"Index":3},"CreatedAt":"2026-01-02T03:04:07Z","UpdatedAt":"2026-01-02T03:04:08Z",` +
			`"Spec":{"Name":"app","Labels":{},"DriverConfiguration":{"Name":"overlay"},"Scope":"swarm"},"DriverState":{"Name":"overlay","Options":` + vxlan + `},` +
			`"IPAMOptions":{"Driver":{"Name":"default"},` + ipam + `}},"Addresses":["10.0.1.11/24"]}],"Volumes":null}]`,
		"/nodes": `[{"ID":"<1>","Version":{"Index":1},"CreatedAt":"2026-01-02T03:04:06Z","UpdatedAt":"2026-01-02T03:04:06Z",` +
			`"Spec":{"Labels":{},"Role":"manager","Availability":"active"},"Description":{"Hostname":"h1","Platform":{"Architecture":"x86_64","OS":"linux"},` +
			`"Resources":{},"Engine":{},"TLSInfo":{}},"Status":{"State":"ready","Addr":"10.77.0.1"},` +
			`"ManagerStatus":{"Leader":true,"Reachability":"reachable","Addr":"10.77.0.1:2377"}}]`,
		"/networks/app": `{` + network + `,"Peers":[{"Name":"` + c.self().ID[:12] + `","IP":"10.77.0.1"}],` +
			`"Containers":{"` + strings.Repeat("a", 64) + `":{"Name":"web.1.<2>","EndpointID":"<2>","MacAddress":"02:42:0a:00:01:0b","IPv4Address":"10.0.1.11/24","IPv6Address":""}}}`,
		`/networks?filters={"name":["app"]}`: `[{` + network + `}]`,
		"/swarm/unlockkey":                   `{"UnlockKey":""}`,
	} {
		code, body := c.do("GET", path, nil)
		if got := named(body); code != 200 || got != want {
			t.Errorf("%s: %d\n got %s\nwant %s", path, code, got, want)
		}
	}
	_, body := c.do("GET", "/swarm", nil)
	for _, part := range []string{`"JoinTokens":{"Worker":"<2>","Manager":"<3>"}`, `"DefaultAddrPool":["10.0.0.0/8"],"SubnetSize":24,"DataPathPort":4789`, `"Name":"default","Labels":{}`} {
		if !strings.Contains(named(body), part) {
			t.Errorf("/swarm has no %s: %s", part, named(body))
		}
	}
}
