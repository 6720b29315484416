package dockerapi

import (
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
)

// normalizeSpec writes out what a spec leaves to its meaning (mode, protocols,
// actions), so that nobody behind has to know those defaults, and refuses what
// has no meaning or is not served.
func normalizeSpec(s *swarm.ServiceSpec) error {
	if err := normalizeMode(&s.Mode); err != nil {
		return err
	}
	if err := normalizeTask(&s.TaskTemplate); err != nil {
		return err
	}
	if err := normalizeUpdate(s.UpdateConfig); err != nil {
		return err
	}
	if err := normalizeUpdate(s.RollbackConfig); err != nil {
		return err
	}
	return normalizeEndpoint(s.EndpointSpec)
}

func normalizeMode(m *swarm.ServiceMode) error {
	switch set := modesOf(*m); {
	case len(set) > 1:
		return api.Errorf(api.Invalid, "must specify only one service mode")
	case len(set) == 0:
		m.Replicated = &swarm.ReplicatedService{}
	case set[0] == modeReplicatedJob || set[0] == modeGlobalJob:
		return api.Errorf(api.Unimplemented, "services of mode %s are not supported by this version", set[0])
	}
	if m.Replicated != nil {
		one := uint64(1)
		orNew(&m.Replicated.Replicas, &one)
	}
	return nil
}

func normalizeTask(t *swarm.TaskSpec) error {
	switch t.Runtime {
	case "", swarm.RuntimeContainer:
	case swarm.RuntimeNetworkAttachment:
		return api.Errorf(api.Internal, "invalid task spec: spec type %q not supported", t.Runtime)
	case swarm.RuntimePlugin:
		return api.Errorf(api.Unimplemented, "services that run plugins are not supported by this version")
	default:
		return api.Errorf(api.Invalid, "unsupported runtime type: %q", t.Runtime)
	}
	if t.ContainerSpec == nil || t.PluginSpec != nil || t.NetworkAttachmentSpec != nil {
		return api.Errorf(api.Invalid, "mismatched Runtime and *Spec fields")
	}
	if err := refuseSecrets(t.ContainerSpec); err != nil {
		return err
	}
	t.Runtime = swarm.RuntimeContainer
	if p := t.RestartPolicy; p != nil {
		or(&p.Condition, swarm.RestartPolicyConditionAny)
		switch p.Condition {
		case swarm.RestartPolicyConditionAny, swarm.RestartPolicyConditionNone, swarm.RestartPolicyConditionOnFailure:
		default:
			return api.Errorf(api.Invalid, "invalid RestartCondition: %q", p.Condition)
		}
	}
	return nil
}

func refuseSecrets(c *swarm.ContainerSpec) error {
	var names []string
	for _, s := range c.Secrets {
		if s != nil {
			names = append(names, "secret "+s.SecretName)
		}
	}
	for _, s := range c.Configs {
		if s != nil {
			names = append(names, "config "+s.ConfigName)
		}
	}
	if len(c.Secrets)+len(c.Configs) > 0 {
		return api.Errorf(api.Unimplemented, "services with secrets or configs are not supported by this version: %s", strings.Join(names, ", "))
	}
	return nil
}

func normalizeUpdate(c *swarm.UpdateConfig) error {
	if c == nil {
		return nil
	}
	or(&c.FailureAction, swarm.UpdateFailureActionPause)
	or(&c.Order, swarm.UpdateOrderStopFirst)
	switch c.FailureAction {
	case swarm.UpdateFailureActionPause, swarm.UpdateFailureActionContinue, swarm.UpdateFailureActionRollback:
	default:
		return api.Errorf(api.Invalid, "unrecognized update failure action %s", c.FailureAction)
	}
	if c.Order != swarm.UpdateOrderStopFirst && c.Order != swarm.UpdateOrderStartFirst {
		return api.Errorf(api.Invalid, "unrecognized update order %s", c.Order)
	}
	return nil
}

func normalizeEndpoint(e *swarm.EndpointSpec) error {
	if e == nil {
		return nil
	}
	e.Mode = swarm.ResolutionMode(strings.ToLower(string(e.Mode)))
	or(&e.Mode, swarm.ResolutionModeVIP)
	if e.Mode != swarm.ResolutionModeVIP && e.Mode != swarm.ResolutionModeDNSRR {
		return api.Errorf(api.Invalid, "invalid resolution mode: %q", e.Mode)
	}
	for i := range e.Ports {
		if err := normalizePort(&e.Ports[i]); err != nil {
			return err
		}
	}
	return nil
}

func normalizePort(p *swarm.PortConfig) error {
	p.Protocol = network.IPProtocol(strings.ToLower(string(p.Protocol)))
	or(&p.Protocol, network.TCP)
	or(&p.PublishMode, swarm.PortConfigPublishModeIngress)
	switch p.Protocol {
	case network.TCP, network.UDP, network.SCTP:
	default:
		return api.Errorf(api.Invalid, "invalid protocol of port %d: %q", p.TargetPort, p.Protocol)
	}
	if p.PublishMode != swarm.PortConfigPublishModeIngress && p.PublishMode != swarm.PortConfigPublishModeHost {
		return api.Errorf(api.Invalid, "invalid publish mode of port %d: %q", p.TargetPort, p.PublishMode)
	}
	return nil
}

// ignoreNewer drops the fields of a spec that did not exist in the version that
// the client speaks: what it did not know it cannot have meant.
func ignoreNewer(s *swarm.ServiceSpec, v wire.Version) {
	older := func(minor int) bool { return v.Less(wire.Version{Major: 1, Minor: minor}) }
	t := &s.TaskTemplate
	if older(40) && t.Placement != nil {
		t.Placement.MaxReplicas = 0
	}
	if older(41) {
		s.Mode.ReplicatedJob, s.Mode.GlobalJob = nil, nil
		if t.Resources != nil && t.Resources.Limits != nil {
			t.Resources.Limits.Pids = 0
		}
	}
	if t.ContainerSpec != nil {
		ignoreNewerContainer(t.ContainerSpec, older)
	}
}

func ignoreNewerContainer(c *swarm.ContainerSpec, older func(int) bool) {
	if older(40) {
		c.Sysctls = nil
	}
	if older(41) {
		c.CapabilityAdd, c.CapabilityDrop, c.Ulimits = nil, nil, nil
	}
	if older(44) {
		if c.Privileges != nil {
			c.Privileges.Seccomp, c.Privileges.AppArmor, c.Privileges.NoNewPrivileges = nil, nil, false
		}
		if c.Healthcheck != nil {
			c.Healthcheck.StartInterval = 0
		}
	}
	if older(46) {
		c.OomScoreAdj = 0
		for _, m := range c.Mounts {
			if m.TmpfsOptions != nil {
				m.TmpfsOptions.Options = nil
			}
		}
	}
}

// ignoreNewerInit does the same for the start of a cluster.
func ignoreNewerInit(req *swarm.InitRequest, v wire.Version) {
	if v.Less(wire.Version{Major: 1, Minor: 39}) {
		req.DefaultAddrPool, req.SubnetSize = nil, 0
	}
	if v.Less(wire.Version{Major: 1, Minor: 40}) {
		req.DataPathPort = 0
	}
}

// Defaults of a service, which inspect shows when asked to.
const (
	defaultStopGrace    = 10 * time.Second
	defaultRestartDelay = 5 * time.Second
	defaultMonitor      = 5 * time.Second
)

// insertDefaults writes the defaults where the spec says nothing. What the spec
// points at is shared with the store, so it is replaced and not changed.
func insertDefaults(s *swarm.ServiceSpec) {
	*s = copySpec(*s)
	t := &s.TaskTemplate
	if c := t.ContainerSpec; c != nil {
		grace := defaultStopGrace
		orNew(&c.StopGracePeriod, &grace)
		orNew(&c.DNSConfig, &swarm.DNSConfig{})
	}
	orNew(&t.Resources, &swarm.ResourceRequirements{})
	delay, attempts := defaultRestartDelay, uint64(0)
	orNew(&t.RestartPolicy, &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny, MaxAttempts: &attempts})
	orNew(&t.RestartPolicy.Delay, &delay)
	orNew(&t.Placement, &swarm.Placement{})
	insertUpdateDefaults(&s.UpdateConfig)
	insertUpdateDefaults(&s.RollbackConfig)
	orNew(&s.EndpointSpec, &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP})
	s.Labels = present(s.Labels)
}

func insertUpdateDefaults(c **swarm.UpdateConfig) {
	orNew(c, &swarm.UpdateConfig{
		Parallelism: 1, FailureAction: swarm.UpdateFailureActionPause, Order: swarm.UpdateOrderStopFirst,
	})
	or(&(*c).Monitor, defaultMonitor)
}
