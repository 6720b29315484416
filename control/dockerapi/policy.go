package dockerapi

import (
	"cmp"
	"fmt"
	"maps"
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

// checkBalancers refuses an algorithm that some node could not balance by. Every
// node is asked, wherever the tasks run: each is an entry of the routing mesh, and
// may be the home of a client. A node that is down is not, for it may never come
// back, nor is anybody when the algorithm is what the service has already.
func checkBalancers(v *store.View, spec, old *swarm.ServiceSpec) error {
	algorithm := algorithmOf(spec)
	if old != nil && algorithmOf(old) == algorithm {
		return nil
	}
	unable := map[string][]string{} // nodes by reason
	for _, n := range v.Nodes() {
		can, why := n.Capabilities.Balances(algorithm)
		if can || n.Status.State == swarm.NodeStateDown {
			continue
		}
		reason := fmt.Sprintf(" (kernel %s): %s", n.Capabilities.Kernel, why)
		unable[reason] = append(unable[reason], n.Description.Hostname)
	}
	if len(unable) == 0 {
		return nil
	}
	return api.Errorf(api.Invalid, "label %s: not every node can balance by %q: %s", api.LabelAlgorithm, algorithm, inGroups(unable))
}

// How much an error names before it counts the rest.
const (
	namedNodes   = 3 // for one reason
	namedReasons = 3
)

// inGroups names the nodes of each reason, the most frequent reason first.
func inGroups(nodes map[string][]string) string {
	reasons := slices.SortedFunc(maps.Keys(nodes), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(nodes[b]), len(nodes[a])), cmp.Compare(a, b))
	})
	var parts []string
	rest := 0
	for i, reason := range reasons {
		names := slices.Sorted(slices.Values(nodes[reason]))
		if i >= namedReasons {
			rest += len(names)
			continue
		}
		more := ""
		if n := len(names) - namedNodes; n > 0 {
			names, more = names[:namedNodes], fmt.Sprintf(" and %d more", n)
		}
		parts = append(parts, strings.Join(names, ", ")+more+reason)
	}
	if rest > 0 {
		parts = append(parts, fmt.Sprintf("and %d more for other reasons", rest))
	}
	return strings.Join(parts, "; ")
}

func algorithmOf(spec *swarm.ServiceSpec) string {
	policy, _ := api.ParsePolicy(spec.Labels) // a service that exists may be older than the rules
	return policy.Algorithm
}
