package engineapi

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/runtime"
	"shoal/node/standalone"
)

// textNoNetwork says where a container outside services can run.
const textNoNetwork = "a container outside services runs on an attachable overlay network: name one with --network " +
	"(docker network create -d overlay --attachable makes one), or say host for the node's own network, or none"

// wishOf turns a request into what is to run, or refuses it.
func wishOf(name string, req container.CreateRequest) (w standalone.Wish, err error) {
	if req.Config == nil || req.Config.Image == "" {
		return w, api.Errorf(api.Invalid, "config cannot be empty in order to create a container")
	}
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	if err := refuse(req.Config, req.HostConfig); err != nil {
		return w, err
	}
	w = standalone.Wish{
		Name: strings.TrimPrefix(name, "/"), AutoRemove: req.HostConfig.AutoRemove, StdinOnce: req.Config.StdinOnce,
		Config: req.Config, Host: req.HostConfig, Limits: limitsOf(req.HostConfig),
	}
	if w.Networks, err = networksOf(req); err != nil {
		return w, err
	}
	w.Spec = specOf(req.Config, req.HostConfig)
	if w.Spec.Command, w.Spec.Args, err = programOf(req.Config); err != nil {
		return w, err
	}
	if w.Spec.Mounts, err = mountsOf(req.Config, req.HostConfig); err != nil {
		return w, err
	}
	w.Spec.Hosts, err = hostsOf(req.HostConfig.ExtraHosts)
	return w, err
}

// refuse names the first thing that is asked for and not to be had.
func refuse(c *container.Config, h *container.HostConfig) error {
	for _, no := range []struct {
		asked bool
		why   string
	}{
		{len(h.PortBindings) > 0 || h.PublishAllPorts, "ports of a container outside services cannot be published: publish those of a service (docker service create -p)"},
		{!h.RestartPolicy.IsNone() && h.RestartPolicy.Name != "", "a container outside services is never restarted: restart policy \"" + string(h.RestartPolicy.Name) + "\" needs a service (docker service create)"},
		{h.Privileged, "--privileged is not supported: name the capabilities with --cap-add"},
		{len(h.Links) > 0, "--link is not supported: containers on one network reach each other by name"},
		{len(h.VolumesFrom) > 0, "--volumes-from is not supported: mount volumes by name"},
		{h.VolumeDriver != "" && h.VolumeDriver != "local", "volume driver \"" + h.VolumeDriver + "\" is not supported"},
		{len(h.Devices)+len(h.DeviceRequests)+len(h.DeviceCgroupRules) > 0, "devices are not supported"},
		{h.PidMode != "" || h.UTSMode != "" || h.UsernsMode != "" || !h.IpcMode.IsEmpty() && !h.IpcMode.IsPrivate(), "a container has namespaces of its own: --pid, --uts, --userns and --ipc are not supported"},
		{len(h.SecurityOpt)+len(h.StorageOpt) > 0, "--security-opt and --storage-opt are not supported"},
		{h.LogConfig.Type != "" && h.LogConfig.Type != "json-file", "log driver \"" + h.LogConfig.Type + "\" is not supported: output is kept as json-file has it"},
		{h.Runtime != "" && h.Runtime != "runc", "runtime \"" + h.Runtime + "\" is not supported: containers run with runc"},
		{h.CPUShares|h.CPUPeriod|h.CPUQuota|h.CPURealtimePeriod|h.CPURealtimeRuntime != 0 || h.CpusetCpus+h.CpusetMems != "", "of limits on processors only --cpus is supported"},
		{h.MemoryReservation != 0 || h.MemorySwap > 0 && h.MemorySwap != 2*h.Memory, "of limits on memory only --memory is supported"},
		{h.ShmSize != 0 || h.CgroupParent != "" || h.BlkioWeight != 0, "--shm-size, --cgroup-parent and --blkio-weight are not supported"},
		{hasCheck(c.Healthcheck), "a container outside services is not examined: health checks need a service"},
		{c.NetworkDisabled, textNoNetwork},
		{h.NetworkMode.IsHost() && setsNetwork(h.Sysctls), "a sysctl that begins with net would be the node's own on the network host: set it there"},
	} {
		if no.asked {
			return api.Errorf(api.Invalid, "%s", no.why)
		}
	}
	return nil
}

// setsNetwork says whether one of the settings is that of a network namespace.
func setsNetwork(sysctls map[string]string) bool {
	for key := range sysctls {
		if strings.HasPrefix(key, "net.") || strings.HasPrefix(key, "net/") {
			return true
		}
	}
	return false
}

func hasCheck(h *container.HealthConfig) bool {
	return h != nil && len(h.Test) > 0 && h.Test[0] != "NONE"
}

// networksOf lists the networks of the request with the aliases there, the one
// that the network mode names first.
func networksOf(req container.CreateRequest) ([]swarm.NetworkAttachmentConfig, error) {
	mode := string(req.HostConfig.NetworkMode)
	switch {
	case mode == "" || mode == network.NetworkDefault || mode == network.NetworkBridge:
		return nil, api.Errorf(api.Invalid, "%s", textNoNetwork)
	case strings.HasPrefix(mode, "container:"):
		return nil, api.Errorf(api.Invalid, "a container cannot share the network of another one: %s", textNoNetwork)
	}
	ends := map[string]*network.EndpointSettings{}
	if req.NetworkingConfig != nil {
		maps.Copy(ends, req.NetworkingConfig.EndpointsConfig)
	}
	names := slices.Sorted(maps.Keys(ends))
	names = append([]string{mode}, slices.DeleteFunc(names, func(n string) bool { return n == mode })...)
	var out []swarm.NetworkAttachmentConfig
	for _, name := range names {
		at, err := placeOn(name, ends[name])
		if err != nil {
			return nil, err
		}
		out = append(out, at)
	}
	return out, nil
}

func placeOn(name string, e *network.EndpointSettings) (at swarm.NetworkAttachmentConfig, err error) {
	at.Target = name
	if e == nil {
		return at, nil
	}
	switch ip := e.IPAMConfig; {
	case ip != nil && (ip.IPv4Address.IsValid() || ip.IPv6Address.IsValid() || len(ip.LinkLocalIPs) > 0):
		return at, api.Errorf(api.Invalid, "addresses on network %s are given by the managers: --ip and --ip6 are not supported, use --network-alias", name)
	case len(e.MacAddress) > 0:
		return at, api.Errorf(api.Invalid, "hardware addresses on network %s follow from the addresses: --mac-address is not supported", name)
	case len(e.Links) > 0 || len(e.DriverOpts) > 0:
		return at, api.Errorf(api.Invalid, "links and driver options on network %s are not supported", name)
	}
	at.Aliases = e.Aliases
	return at, nil
}

func limitsOf(h *container.HostConfig) *swarm.ResourceRequirements {
	l := &swarm.Limit{NanoCPUs: h.NanoCPUs, MemoryBytes: h.Memory}
	if h.PidsLimit != nil && *h.PidsLimit > 0 {
		l.Pids = *h.PidsLimit
	}
	return &swarm.ResourceRequirements{Limits: l}
}

func specOf(c *container.Config, h *container.HostConfig) swarm.ContainerSpec {
	grace := defaultStopGrace
	if c.StopTimeout != nil && *c.StopTimeout >= 0 {
		grace = time.Duration(*c.StopTimeout) * time.Second
	}
	spec := swarm.ContainerSpec{
		Image: c.Image, Labels: c.Labels, Hostname: c.Hostname, Env: c.Env, Dir: c.WorkingDir, User: c.User, Groups: h.GroupAdd,
		StopSignal: c.StopSignal, TTY: c.Tty, OpenStdin: c.OpenStdin, ReadOnly: h.ReadonlyRootfs, StopGracePeriod: &grace,
		Init: h.Init, Sysctls: h.Sysctls, CapabilityAdd: h.CapAdd, CapabilityDrop: h.CapDrop, OomScoreAdj: int64(h.OomScoreAdj),
		Ulimits: h.Ulimits,
	}
	if len(h.DNS)+len(h.DNSSearch)+len(h.DNSOptions) > 0 {
		spec.DNSConfig = &swarm.DNSConfig{Nameservers: h.DNS, Search: h.DNSSearch, Options: h.DNSOptions}
	}
	return spec
}

// programOf splits what is to run as the runtime does: an entry point replaces the
// image's, and an empty one takes it away.
func programOf(c *container.Config) (entrypoint, args []string, err error) {
	if len(c.Entrypoint) != 1 || c.Entrypoint[0] != "" {
		return c.Entrypoint, c.Cmd, nil
	}
	if len(c.Cmd) == 0 {
		return nil, nil, api.Errorf(api.Invalid, "no command specified")
	}
	return c.Cmd, nil, nil
}

// hostsOf turns name:address into a line of /etc/hosts.
func hostsOf(extra []string) (lines []string, err error) {
	for _, e := range extra {
		name, addr, ok := strings.Cut(e, ":")
		if !ok || name == "" || addr == "" {
			return nil, api.Errorf(api.Invalid, "bad format for add-host: %q", e)
		}
		lines = append(lines, addr+" "+name)
	}
	return lines, nil
}

// mountsOf joins the three ways in which a request names mounts.
func mountsOf(c *container.Config, h *container.HostConfig) ([]mount.Mount, error) {
	mounts := slices.Clone(h.Mounts)
	for _, bind := range h.Binds {
		m, err := bindOf(bind)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	for _, target := range slices.Sorted(maps.Keys(h.Tmpfs)) {
		if options := h.Tmpfs[target]; options != "" {
			return nil, api.Errorf(api.Invalid, "options of --tmpfs (%s) are not supported: use --mount type=tmpfs", options)
		}
		mounts = append(mounts, mount.Mount{Type: mount.TypeTmpfs, Target: target})
	}
	for _, target := range slices.Sorted(maps.Keys(c.Volumes)) {
		mounts = append(mounts, mount.Mount{Type: mount.TypeVolume, Target: target})
	}
	for _, m := range mounts {
		if !strings.HasPrefix(m.Target, "/") {
			return nil, runtime.Invalid("invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute", m.Type, m.Target)
		}
	}
	return mounts, nil
}

// bindOf reads source:target[:options]; a source that is no path is a volume's name.
func bindOf(text string) (m mount.Mount, err error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" {
		return m, api.Errorf(api.Invalid, "invalid volume specification: '%s'", text)
	}
	m = mount.Mount{Type: mount.TypeVolume, Source: parts[0], Target: parts[1]}
	if strings.HasPrefix(m.Source, "/") { // docker makes a directory that is missing
		m.Type, m.BindOptions = mount.TypeBind, &mount.BindOptions{CreateMountpoint: true}
	}
	if len(parts) < 3 {
		return m, nil
	}
	for _, option := range strings.Split(parts[2], ",") {
		switch p := mount.Propagation(option); {
		case option == "ro":
			m.ReadOnly = true
		case option == "rw", cmp.Or(option, "z") == "z", option == "Z", option == "nocopy":
		case m.BindOptions != nil && slices.Contains(mount.Propagations, p):
			m.BindOptions.Propagation = p
		default:
			return m, api.Errorf(api.Invalid, "invalid mode: %s", parts[2])
		}
	}
	return m, nil
}
