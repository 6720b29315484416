package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// TestPublishedPlaces: a port answers at the addresses that its service names, as
// far as the node has them.
func TestPublishedPlaces(t *testing.T) {
	for name, row := range map[string]struct {
		labels map[string]string
		mode   swarm.PortConfigPublishMode
		want   []string
	}{
		"everywhere":           {nil, "ingress", []string{"forward 8080/tcp (web) to 169.254.128.2:8080"}},
		"an address":           {map[string]string{api.LabelPublish: "192.0.2.1"}, "ingress", []string{"forward 8080/tcp at 192.0.2.1 (web) to 169.254.128.2:8080"}},
		"of another node":      {map[string]string{api.LabelPublish: "192.0.2.2"}, "ingress", nil},
		"an interface":         {map[string]string{api.LabelPublish: "eth1"}, "ingress", []string{"forward 8080/tcp at 198.51.100.1 (web) to 169.254.128.2:8080", "forward 8080/tcp at 198.51.100.2 (web) to 169.254.128.2:8080"}},
		"no such interface":    {map[string]string{api.LabelPublish: "eth7"}, "ingress", nil},
		"of the other family":  {map[string]string{api.LabelPublish: "2001:db8::1"}, "ingress", nil},
		"here and there":       {map[string]string{api.LabelPublish: "localhost, 192.0.2.1, 192.0.2.2"}, "ingress", []string{"forward 8080/tcp at 127.0.0.1 (web) to 169.254.128.2:8080", "forward 8080/tcp at 192.0.2.1 (web) to 169.254.128.2:8080"}},
		"one port of several":  {map[string]string{api.LabelPublish: "eth1", api.LabelPublish + ".8080": "192.0.2.1"}, "ingress", []string{"forward 8080/tcp at 192.0.2.1 (web) to 169.254.128.2:8080"}},
		"a port of the host":   {map[string]string{api.LabelPublish: "192.0.2.1"}, "host", []string{"forward 8080/tcp at 192.0.2.1 (cli.1) to 172.18.0.5:80"}},
		"a port of every host": {nil, "host", []string{"forward 8080/tcp (cli.1) to 172.18.0.5:80"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := world(rec("n1", "cli", "web", 1, "ingress", "10.0.0.9", "net", "10.0.1.9"))
			in.Self.Addrs = map[string][]netip.Addr{}
			for link, addrs := range map[string][]string{"lo": {"127.0.0.1", "::1"}, "eth0": {"192.0.2.1", "2001:db8::1"}, "eth1": {"198.51.100.2", "198.51.100.1"}} {
				for _, a := range addrs {
					in.Self.Addrs[link] = append(in.Self.Addrs[link], netip.MustParseAddr(a))
				}
			}
			in.Networks = append(in.Networks, ingressNetwork())
			in.Local[0].Gateway = netip.MustParsePrefix("172.18.0.5/16")
			publish(in.Services[0], 80, 8080, row.mode)
			in.Services[0].Spec.Labels, in.Local[0].Task.ServiceLabels = row.labels, row.labels
			if row.mode == "host" {
				in.Local[0].Task.Ports = in.Services[0].Endpoint.Ports
			}
			var got []string
			for _, f := range Compile(in).Translations[0].Forwards {
				if f.To.Addr().Is4() {
					got = append(got, fmt.Sprint(f))
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("forwards %q, want %q", got, row.want)
			}
		})
	}
}
