package netview

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/dataplane/trace"
)

// TaskWords says in one line how a task is, in the words of the API and of docker
// service ps.
func TaskWords(name, node string, t *api.Task) string {
	out := name
	if node != "" {
		out += " on " + node
	}
	out += " is " + string(t.Status.State)
	if t.Status.Err != "" {
		out += ": " + t.Status.Err
	}
	return out
}

// frontless is the service that refused the packet, nil where it was another one.
func (s *Sources) frontless(p trace.Path) *api.Service {
	if p.Verdict != trace.Refused || len(p.Hops) == 0 || p.Hops[len(p.Hops)-1].Result != "no backend" {
		return nil
	}
	for _, svc := range s.Services {
		for _, v := range svc.Endpoint.VirtualIPs {
			if v.Addr.Addr() == p.Dst.Addr() {
				return svc
			}
		}
		for _, port := range svc.Endpoint.Ports {
			mesh := port.PublishMode != swarm.PortConfigPublishModeHost
			if mesh && p.Dst.Addr().IsLinkLocalUnicast() && port.PublishedPort == uint32(p.Dst.Port()) {
				return svc
			}
		}
	}
	return nil
}

// whyNobody says why a service has no backend: what its tasks do instead.
func (s *Sources) whyNobody(ctx context.Context, svc *api.Service) string {
	words := s.tasks(ctx, svc.ID)
	if len(words) == 0 {
		return fmt.Sprintf("service %s has no task that takes requests", svc.Spec.Name)
	}
	return fmt.Sprintf("service %s has no task that takes requests: %s", svc.Spec.Name, strings.Join(words, "; "))
}

// tasks are a service's tasks in words, from this node's manager or another.
func (s *Sources) tasks(ctx context.Context, serviceID string) []string {
	if s.Tasks != nil {
		return s.Tasks(serviceID)
	}
	if s.Peers == nil {
		return []string{}
	}
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	for _, id := range s.others() {
		var out []string
		if s.Nodes[id].Spec.Role == swarm.NodeRoleManager &&
			s.Peers.Get(ctx, id, "/shoal/tasks", url.Values{"service": {serviceID}, relayed: {"1"}}, &out) == nil {
			return out
		}
	}
	return []string{}
}
