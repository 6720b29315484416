package dockerapi

import (
	"regexp"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/schedule/constraint"
)

var dnsName = regexp.MustCompile(`^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`)

// maxName is the length of a DNS label (RFC 1035, 2.3.4).
const maxName = 63

// checkName says whether a service or network may be called so.
func checkName(name string) error {
	switch {
	case name == "":
		return api.Errorf(api.Invalid, "meta: name must be provided")
	case !dnsName.MatchString(name):
		return api.Errorf(api.Invalid, "name must be valid as a DNS name component")
	case len(name) > maxName:
		return api.Errorf(api.Invalid, "name must be 63 characters or fewer")
	}
	return nil
}

// validateSpec says whether a normalised spec can be served, whatever the state
// of the cluster.
func validateSpec(s *swarm.ServiceSpec) error {
	if err := checkName(s.Name); err != nil {
		return err
	}
	if err := validateTask(&s.TaskTemplate); err != nil {
		return err
	}
	if m := s.Mode.Replicated; m != nil && int64(*m.Replicas) < 0 {
		return api.Errorf(api.Invalid, "Number of replicas must be non-negative")
	}
	if err := checkUpdateConfig(s.UpdateConfig, "update"); err != nil {
		return err
	}
	if err := checkUpdateConfig(s.RollbackConfig, "rollback"); err != nil {
		return err
	}
	return checkEndpoint(s.EndpointSpec)
}

func validateTask(t *swarm.TaskSpec) error {
	if err := checkResources(t.Resources); err != nil {
		return err
	}
	if err := checkRestart(t.RestartPolicy); err != nil {
		return err
	}
	if t.Placement != nil {
		// Docker answers a constraint that it cannot parse with 500.
		for _, p := range t.Placement.Preferences {
			if p.Spread == nil {
				return api.Errorf(api.Invalid, "TaskSpec: a placement preference without anything to spread over")
			}
		}
		if _, err := constraint.Parse(t.Placement.Constraints); err != nil {
			return api.Errorf(api.Internal, "%w", err)
		}
	}
	if err := checkImage(t.ContainerSpec.Image); err != nil {
		return err
	}
	for _, u := range t.ContainerSpec.Ulimits {
		if u == nil {
			return api.Errorf(api.Invalid, "ContainerSpec: a ulimit without a name")
		}
	}
	if err := checkMounts(t.ContainerSpec.Mounts); err != nil {
		return err
	}
	return checkHealth(t.ContainerSpec.Healthcheck)
}

// Least amounts that can be asked for.
const (
	minCPU    = 1e6 // billionths of a CPU
	minMemory = 4 << 20
)

func checkResources(r *swarm.ResourceRequirements) error {
	if r == nil {
		return nil
	}
	if l := r.Limits; l != nil {
		if err := checkAmounts(l.NanoCPUs, l.MemoryBytes); err != nil {
			return err
		}
		if l.Pids < 0 {
			return api.Errorf(api.Invalid, "invalid pids limit %d: Must not be negative", l.Pids)
		}
	}
	if res := r.Reservations; res != nil {
		if len(res.GenericResources) > 0 {
			return api.Errorf(api.Unimplemented, "reservations of generic resources are not supported by this version")
		}
		return checkAmounts(res.NanoCPUs, res.MemoryBytes)
	}
	return nil
}

func checkAmounts(cpu, memory int64) error {
	if cpu != 0 && cpu < minCPU {
		return api.Errorf(api.Invalid, "invalid cpu value %g: Must be at least %g", float64(cpu)/1e9, minCPU/1e9)
	}
	if memory != 0 && memory < minMemory {
		return api.Errorf(api.Invalid, "invalid memory value %d: Must be at least 4MiB", memory)
	}
	return nil
}

func checkRestart(p *swarm.RestartPolicy) error {
	if p == nil {
		return nil
	}
	if p.Delay != nil && *p.Delay < 0 {
		return api.Errorf(api.Invalid, "TaskSpec: restart-delay cannot be negative")
	}
	if p.Window != nil && *p.Window < 0 {
		return api.Errorf(api.Invalid, "TaskSpec: restart-window cannot be negative")
	}
	return nil
}

func checkImage(image string) error {
	if image == "" {
		return api.Errorf(api.Invalid, "ContainerSpec: image reference must be provided")
	}
	if _, err := reference.ParseNormalizedNamed(image); err != nil {
		return api.Errorf(api.Invalid, "ContainerSpec: %q is not a valid repository/tag", image)
	}
	return nil
}

func checkMounts(mounts []mount.Mount) error {
	targets := map[string]bool{}
	for _, m := range mounts {
		switch m.Type {
		case mount.TypeBind, mount.TypeVolume, mount.TypeTmpfs, mount.TypeNamedPipe:
		case mount.TypeCluster:
			return api.Errorf(api.Unimplemented, "cluster volumes are not supported by this version: mount %s", m.Target)
		default:
			return api.Errorf(api.Invalid, "invalid MountType: %q", m.Type)
		}
		if targets[m.Target] {
			return api.Errorf(api.Invalid, "ContainerSpec: duplicate mount point: %s", m.Target)
		}
		targets[m.Target] = true
	}
	return nil
}

// minHealthDuration is the shortest time of a health check that is not "default".
const minHealthDuration = time.Millisecond

func checkHealth(h *container.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < minHealthDuration {
			return api.Errorf(api.Invalid, "ContainerSpec: %s in HealthConfig cannot be less than %s", d.name, minHealthDuration)
		}
	}
	if h.Retries < 0 {
		return api.Errorf(api.Invalid, "ContainerSpec: Retries in HealthConfig cannot be negative")
	}
	return nil
}

func checkUpdateConfig(c *swarm.UpdateConfig, what string) error {
	switch {
	case c == nil:
		return nil
	case c.Delay < 0:
		return api.Errorf(api.Invalid, "TaskSpec: %s-delay cannot be negative", what)
	case c.Monitor < 0:
		return api.Errorf(api.Invalid, "TaskSpec: %s-monitor cannot be negative", what)
	case !(c.MaxFailureRatio >= 0 && c.MaxFailureRatio <= 1):
		return api.Errorf(api.Invalid, "TaskSpec: %s-maxfailureratio cannot be less than 0 or bigger than 1", what)
	}
	return nil
}

// maxPort is the highest port of TCP, UDP and SCTP.
const maxPort = 65535

func checkEndpoint(e *swarm.EndpointSpec) error {
	if e == nil {
		return nil
	}
	published := map[port]bool{}
	for _, p := range e.Ports {
		if e.Mode == swarm.ResolutionModeDNSRR && p.PublishMode == swarm.PortConfigPublishModeIngress {
			return api.Errorf(api.Invalid, "EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
		}
		if p.TargetPort == 0 || p.TargetPort > maxPort || p.PublishedPort > maxPort {
			return api.Errorf(api.Invalid, "EndpointSpec: invalid port: target %d, published %d", p.TargetPort, p.PublishedPort)
		}
		if p.PublishedPort == 0 {
			continue
		}
		key := port{string(p.Protocol), p.PublishedPort}
		if published[key] {
			return api.Errorf(api.Invalid, "EndpointSpec: duplicate published ports provided")
		}
		published[key] = true
	}
	return nil
}
