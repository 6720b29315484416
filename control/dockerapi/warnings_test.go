package dockerapi

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
)

func TestWarningsNameWhatIsNotDone(t *testing.T) {
	for want, change := range map[string]func(*swarm.ServiceSpec){
		"log driver": func(s *swarm.ServiceSpec) { s.TaskTemplate.LogDriver = &swarm.Driver{Name: "syslog"} },
		"privilege": func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Privileges = &swarm.Privileges{NoNewPrivileges: true}
		},
		"driver options": func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "app", DriverOpts: map[string]string{"com.docker.network.endpoint.ifname": "lan0"}}}
		},
		"": func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.DNSConfig.Nameservers = []netip.Addr{netip.MustParseAddr("192.0.2.53")}
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "app", Aliases: []string{"shop"}}}
			s.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "true"}}
		},
	} {
		spec := swarm.ServiceSpec{TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{DNSConfig: &swarm.DNSConfig{}}}}
		change(&spec)
		got := strings.Join(warnings(httptest.NewRequest("POST", "/services/create", nil), spec), "; ")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("want a warning about %q, got %q", want, got)
		}
	}
	for vnis, warned := range map[string]bool{"": false, "5000": false, "5000,5001": true} {
		got := createWarning(network.CreateRequest{Options: map[string]string{vniOption: vnis}})
		if (got != "") != warned {
			t.Errorf("identifiers %q: warned %q", vnis, got)
		}
	}
}
