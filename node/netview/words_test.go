package netview

import (
	"net/netip"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/trace"
)

// TestWhyNobody: a refusal for want of backends is told with the words that the
// API has for the tasks.
func TestWhyNobody(t *testing.T) {
	s, _ := cluster(t)
	task := &api.Task{}
	task.Status.State, task.Status.Err = swarm.TaskStateStarting, "takes no requests yet: waits until 80/tcp accepts connections"
	s.Tasks = func(string) []string { return []string{TaskWords("web.1", "h2", task)} }
	svc := &api.Service{}
	svc.ID, svc.Spec.Name = "web", "web"
	svc.Endpoint.VirtualIPs = []swarm.EndpointVirtualIP{{Addr: netip.MustParsePrefix("10.0.1.2/24")}}
	svc.Endpoint.Ports = []swarm.PortConfig{{PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeIngress}}
	s.Services = map[string]*api.Service{"web": svc}
	const want = "service web has no task that takes requests: web.1 on h2 is starting: takes no requests yet: waits until 80/tcp accepts connections"
	for dst, want := range map[string]string{"10.0.1.2:80": want, "169.254.128.2:8080": want, "10.0.1.9:80": ""} {
		p := trace.Path{Verdict: trace.Refused, Dst: netip.MustParseAddrPort(dst), Hops: []trace.Hop{{Result: "no backend"}}}
		if got := s.explain(t.Context(), origin{}, []trace.Path{p}); got[0].Reason != want {
			t.Errorf("%s: %q, want %q", dst, got[0].Reason, want)
		}
	}
	s.Tasks = func(string) []string { return nil }
	if got := s.whyNobody(t.Context(), svc); got != "service web has no task that takes requests" {
		t.Error(got)
	}
}
