package dockerapi

import (
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// checkLabels looks at the labels that mean something to Shoal.
func checkLabels(s *swarm.ServiceSpec) error {
	policy, err := api.ParsePolicy(s.Labels)
	if err != nil {
		return err
	}
	strange := policy.PublishLabels(func(number uint32, protocol string) bool {
		if s.EndpointSpec == nil {
			return false
		}
		for _, p := range s.EndpointSpec.Ports {
			if p.PublishedPort == number && (protocol == "" || protocol == string(p.Protocol)) {
				return true
			}
		}
		return false
	})
	if len(strange) > 0 {
		return api.Errorf(api.Invalid, "label %s: the service does not publish that port", strings.Join(strange, ", "))
	}
	return nil
}

// namedNodes is how many nodes an error names before it counts the rest.
const namedNodes = 3

// checkBalancers refuses an algorithm that some node could not balance by. Every
// node is asked, wherever the tasks run: each is an entry of the routing mesh, and
// may be the home of a client. A node that is down is not, for it may never come
// back, nor is anybody when the algorithm is what the service has already.
func checkBalancers(v *store.View, spec, old *swarm.ServiceSpec) error {
	algorithm := algorithmOf(spec)
	if old != nil && algorithmOf(old) == algorithm {
		return nil
	}
	var unable []string
	for _, n := range v.Nodes() {
		can, why := n.Capabilities.Balances(algorithm)
		if can || n.Status.State == swarm.NodeStateDown {
			continue
		}
		unable = append(unable, fmt.Sprintf("%s (kernel %s): %s", n.Description.Hostname, n.Capabilities.Kernel, why))
	}
	if len(unable) == 0 {
		return nil
	}
	more := ""
	if n := len(unable) - namedNodes; n > 0 {
		unable, more = unable[:namedNodes], fmt.Sprintf("; and %d more", n)
	}
	return api.Errorf(api.Invalid, "label %s: not every node can balance by %q: %s%s", api.LabelAlgorithm, algorithm, strings.Join(unable, "; "), more)
}

func algorithmOf(spec *swarm.ServiceSpec) string {
	policy, _ := api.ParsePolicy(spec.Labels) // a service that exists may be older than the rules
	return policy.Algorithm
}
