package containerd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/contrib/seccomp"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/oci"
	"github.com/opencontainers/runtime-spec/specs-go"

	"shoal/node/runtime"
)

const (
	// defaultPath is what Docker sets where the image says nothing.
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// initTarget is where the little init is inside the container.
	initTarget = "/sbin/docker-init"
	// cpuPeriod is the CFS period in microseconds that CPU limits refer to.
	cpuPeriod = 100_000
)

// spec makes the OCI runtime specification of a container.
func (r *Runtime) spec(ctx context.Context, c *runtime.Container, image *image, rootfs []mount.Mount) (*oci.Spec, error) {
	args, err := arguments(c, image)
	if err != nil {
		return nil, err
	}
	mounts := bindMounts(c)
	if c.Init {
		program, err := findInit()
		if err != nil {
			return nil, err
		}
		args = append([]string{initTarget, "--"}, args...)
		mounts = append(mounts, specs.Mount{Destination: initTarget, Type: "bind", Source: program, Options: []string{"rbind", "ro", "rprivate"}})
	}
	s, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: c.ID}, oci.WithDefaultUnixDevices)
	if err != nil {
		return nil, fmt.Errorf("default specification: %w", err)
	}
	s.Process.Args = args
	s.Process.Env = environment(c, image)
	s.Process.Cwd = first(c.WorkingDir, image.config.Config.WorkingDir, "/")
	s.Process.Terminal = c.TTY
	s.Process.NoNewPrivileges = false
	s.Process.OOMScoreAdj = &c.OomScoreAdj
	s.Process.Rlimits = rlimits(c.Ulimits)
	s.Root.Readonly = c.ReadOnly
	s.Hostname = c.Hostname
	s.Mounts = append(baseMounts(s.Mounts), mounts...)
	s.Linux.CgroupsPath = r.cfg.cgroupPath(c.ID)
	s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/proc/interrupts", "/sys/devices/virtual/thermal")
	setNetwork(s, c, r.cfg.NetNS)
	setLimits(s.Linux.Resources, c.Limits)
	if err := setUser(ctx, s, first(c.User, image.config.Config.User), c.Groups, rootfs); err != nil {
		return nil, err
	}
	return s, r.confine(s, c)
}

// confine sets capabilities and, where the kernel can, system call filters,
// which depend on them.
func (r *Runtime) confine(s *oci.Spec, c *runtime.Container) error {
	caps, err := capabilities(s.Process.Capabilities.Bounding, c.CapAdd, c.CapDrop)
	if err != nil {
		return err
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	if s.Process.User.UID != 0 {
		// Another user than root keeps them only as a bound for set-uid programs.
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps}
	}
	if r.seccomp {
		s.Linux.Seccomp = seccomp.DefaultProfile(s)
	}
	return nil
}

func kernelHasSeccomp() bool {
	raw, err := os.ReadFile("/proc/self/status")
	return err == nil && strings.Contains(string(raw), "\nSeccomp:")
}

// arguments joins entry point and command by Docker's rule: an own entry point
// drops the image's command.
func arguments(c *runtime.Container, image *image) ([]string, error) {
	entrypoint, cmd := image.config.Config.Entrypoint, image.config.Config.Cmd
	if len(c.Entrypoint) > 0 {
		entrypoint, cmd = c.Entrypoint, nil
	}
	if len(c.Args) > 0 {
		cmd = c.Args
	}
	args := append(append([]string(nil), entrypoint...), cmd...)
	if len(args) == 0 {
		return nil, runtime.Invalid("no command specified")
	}
	return args, nil
}

// environment is the image's with the container's over it.
func environment(c *runtime.Container, image *image) []string {
	base := []string{defaultPath, "HOSTNAME=" + c.Hostname}
	if c.TTY {
		base = append(base, "TERM=xterm")
	}
	return mergeEnv(mergeEnv(base, image.config.Config.Env), c.Env)
}

// mergeEnv puts over on base, keeping the place of names that base has. A name
// without "=" in over removes it.
func mergeEnv(base, over []string) []string {
	merged := append([]string(nil), base...)
	for _, entry := range over {
		name, _, set := strings.Cut(entry, "=")
		at := -1
		for i, have := range merged {
			if haveName, _, _ := strings.Cut(have, "="); haveName == name {
				at = i
				break
			}
		}
		switch {
		case at >= 0 && set:
			merged[at] = entry
		case at >= 0:
			merged = append(merged[:at], merged[at+1:]...)
		case set:
			merged = append(merged, entry)
		}
	}
	return merged
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func stopSignal(c runtime.Container, image *image) string {
	return first(c.StopSignal, image.config.Config.StopSignal, "SIGTERM")
}

// findInit finds the little init that reaps children and forwards signals.
func findInit() (string, error) {
	for _, name := range []string{"docker-init", "tini-static", "tini"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", runtime.Invalid(`exec: "docker-init": executable file not found in $PATH`)
}

// setNetwork joins the given namespace, or the node's own, which nothing is set in.
func setNetwork(s *oci.Spec, c *runtime.Container, own string) {
	kept := s.Linux.Namespaces[:0]
	for _, ns := range s.Linux.Namespaces {
		if ns.Type != specs.NetworkNamespace {
			kept = append(kept, ns)
		}
	}
	s.Linux.Namespaces = kept
	s.Linux.Sysctl = map[string]string{}
	if c.NetNS != "" {
		s.Linux.Namespaces = append(kept, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: c.NetNS})
		// As Docker has it: every user of a container may use every port and ping.
		s.Linux.Sysctl["net.ipv4.ip_unprivileged_port_start"] = "0"
		s.Linux.Sysctl["net.ipv4.ping_group_range"] = "0 2147483647"
	} else if own != "" {
		s.Linux.Namespaces = append(kept, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: own})
	}
	for key, value := range c.Sysctls {
		s.Linux.Sysctl[key] = value
	}
}

func setLimits(resources *specs.LinuxResources, limits runtime.Limits) {
	if limits.NanoCPUs > 0 {
		quota, period := limits.NanoCPUs*cpuPeriod/1e9, uint64(cpuPeriod)
		resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if limits.MemoryBytes > 0 {
		resources.Memory = &specs.LinuxMemory{Limit: &limits.MemoryBytes}
	}
	if limits.Pids > 0 {
		resources.Pids = &specs.LinuxPids{Limit: limits.Pids}
	}
}

// rlimits are the wished ones. What is not wished is inherited from containerd,
// because nobody may raise a limit above what its parent has.
func rlimits(ulimits []runtime.Ulimit) []specs.POSIXRlimit {
	limits := make([]specs.POSIXRlimit, 0, len(ulimits))
	for _, u := range ulimits {
		limits = append(limits, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return limits
}
