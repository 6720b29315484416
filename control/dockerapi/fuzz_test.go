package dockerapi

import (
	"encoding/json"
	"fmt"
	"testing"
)

// FuzzWrites sends any body to every route that takes one: the answer is never
// a panic, always JSON or empty, and what was accepted can be shown again.
func FuzzWrites(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x"}}}`,
		`{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"x","Secrets":[null],"Mounts":[{}],"Ulimits":[null]},"Placement":{"Preferences":[{}]},"Networks":[{}]}}`,
		`{"Name":"a","Mode":{"Replicated":{}},"EndpointSpec":{"Ports":[{"TargetPort":1}]},"TaskTemplate":{"ContainerSpec":{"Image":"x"},"RestartPolicy":{}}}`,
		`{"Name":"n","Driver":"overlay","IPAM":{"Config":[{}]}}`, `{"Name":"n","IPAM":{"Config":[{"Subnet":"::/0"},{"Subnet":"10.0.0.0/31"}]}}`,
		`{"Role":"worker","Availability":"drain"}`, `{"Name":"default","CAConfig":{"NodeCertExpiry":9223372036854775807}}`,
		`{"ListenAddr":"x","DefaultAddrPool":["10.0.0.0/8"],"SubnetSize":40}`, `{"UnlockKey":1}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		c := newManager(t)
		id := c.create(spec("web"))
		for _, path := range []string{
			"/services/create", fmt.Sprintf("/services/web/update?version=%d", c.store.View().Service(id).Version.Index),
			"/networks/create", "/nodes/h1/update?version=1", "/swarm/update?version=1", "/swarm/init", "/swarm/join", "/swarm/unlock",
		} {
			code, answer := c.do("POST", path, body)
			if answer != "" && !json.Valid([]byte(answer)) || code < 200 {
				t.Fatalf("%s: %d %s", path, code, answer)
			}
		}
		for _, path := range []string{"/services?status=true", "/networks", "/nodes", "/swarm", "/services/" + id + "?insertDefaults=true"} {
			if code, answer := c.do("GET", path, nil); code != 200 || !json.Valid([]byte(answer)) {
				t.Fatalf("%s: %d %s", path, code, answer)
			}
		}
	})
}
