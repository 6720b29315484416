package dockerapi

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// checkLabels looks at the labels that mean something to Shoal: at all of a new
// service, and at what differs from old in an update. What a service has already
// may be older than the rules, and is no reason to refuse other changes.
func checkLabels(spec, old *swarm.ServiceSpec) error {
	if _, err := api.ParsePolicy(changedLabels(spec, old)); err != nil {
		return err
	}
	strange := strangePorts(spec)
	if old != nil {
		had := strangePorts(old)
		strange = slices.DeleteFunc(strange, func(label string) bool { return slices.Contains(had, label) })
	}
	if len(strange) > 0 {
		return api.Errorf(api.Invalid, "label %s: the service does not publish that port", strings.Join(strange, ", "))
	}
	return nil
}

// changedLabels are those of spec that old has not, or with another value.
func changedLabels(spec, old *swarm.ServiceSpec) map[string]string {
	if old == nil {
		return spec.Labels
	}
	changed := map[string]string{}
	for label, value := range spec.Labels {
		if had, found := old.Labels[label]; !found || had != value {
			changed[label] = value
		}
	}
	return changed
}

// strangePorts are the labels of ports that the service does not publish.
func strangePorts(s *swarm.ServiceSpec) []string {
	policy, _ := api.ParsePolicy(s.Labels) // what is wrong in itself is another matter
	return policy.PublishLabels(func(number uint32, protocol string) bool {
		if s.EndpointSpec == nil {
			return false
		}
		return slices.ContainsFunc(s.EndpointSpec.Ports, func(p swarm.PortConfig) bool {
			return p.PublishedPort == number && (protocol == "" || protocol == string(p.Protocol))
		})
	})
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
