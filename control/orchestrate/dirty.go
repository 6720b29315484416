package orchestrate

import (
	"reflect"
	"slices"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/schedule/constraint"
)

// IsDirty says whether the task must be replaced to agree with its service's
// spec. A task is clean when it was made from this very version of the spec, or
// from an equal one; when only placement constraints differ it is clean as long
// as its node, which may be nil, meets the new ones. A port that the service
// leaves to the allocator agrees with whatever the task was given.
func IsDirty(s *api.Service, t *api.Task, n *api.Node) bool {
	if t.SpecVersion == s.SpecVersion {
		return false
	}
	if !samePorts(s.Spec.EndpointSpec, t.Ports) {
		return true
	}
	if reflect.DeepEqual(s.Spec.TaskTemplate, t.Spec) {
		return false
	}
	want, have := withoutConstraints(s.Spec.TaskTemplate), withoutConstraints(t.Spec)
	if !reflect.DeepEqual(want, have) {
		return true
	}
	return n == nil || !constraint.Met(Constraints(&s.Spec.TaskTemplate), n)
}

// withoutConstraints returns the spec with no constraints, in a form in which
// no placement and an empty one are the same.
func withoutConstraints(spec swarm.TaskSpec) swarm.TaskSpec {
	var p swarm.Placement
	if spec.Placement != nil {
		p = *spec.Placement
	}
	p.Constraints = nil
	spec.Placement = &p
	return spec
}

// samePorts compares the ports that are wished for with those a task was given.
func samePorts(want *swarm.EndpointSpec, have []swarm.PortConfig) bool {
	var wished []swarm.PortConfig
	if want != nil {
		wished = want.Ports
	}
	if len(wished) != len(have) {
		return false
	}
	left := make([]swarm.PortConfig, 0, len(have))
	for _, p := range have {
		left = append(left, normal(p))
	}
	// Ports with a fixed number first, so that a free choice does not take
	// what a fixed one needs.
	wished = slices.Clone(wished)
	slices.SortStableFunc(wished, func(a, b swarm.PortConfig) int { return fixed(b) - fixed(a) })
	for _, p := range wished {
		p = normal(p)
		i := slices.IndexFunc(left, func(q swarm.PortConfig) bool {
			if p.PublishedPort == 0 {
				q.PublishedPort = 0
			}
			return p == q
		})
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return true
}

func fixed(p swarm.PortConfig) int {
	if p.PublishedPort != 0 {
		return 1
	}
	return 0
}

func normal(p swarm.PortConfig) swarm.PortConfig {
	if p.Protocol == "" {
		p.Protocol = network.TCP
	}
	if p.PublishMode == "" {
		p.PublishMode = swarm.PortConfigPublishModeIngress
	}
	return p
}
