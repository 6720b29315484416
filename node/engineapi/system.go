package engineapi

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"shoal/control/dockerapi/wire"
	"shoal/node/runtime"
)

func (a *API) version(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	engine, err := a.cfg.Runtime.Version(r.Context())
	if err != nil {
		return err
	}
	name, number, _ := strings.Cut(engine, " ")
	return wire.WriteJSON(w, http.StatusOK, system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Shoal"}, Version: a.cfg.Version,
		APIVersion: wire.Max.String(), MinAPIVersion: wire.Min.String(),
		Os: goruntime.GOOS, Arch: goruntime.GOARCH, GoVersion: goruntime.Version(), KernelVersion: kernel(),
		Components: []system.ComponentVersion{
			{Name: "Engine", Version: a.cfg.Version, Details: map[string]string{
				"ApiVersion": wire.Max.String(), "MinAPIVersion": wire.Min.String(), "Os": goruntime.GOOS,
				"Arch": goruntime.GOARCH, "GoVersion": goruntime.Version(), "KernelVersion": kernel(),
			}},
			{Name: name, Version: number},
		},
	})
}

func (a *API) info(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	containers, err := a.cfg.Runtime.List(r.Context())
	if err != nil {
		return err
	}
	images, err := a.cfg.Runtime.Images(r.Context())
	if err != nil {
		return err
	}
	running := 0
	for _, c := range containers {
		if c.State == runtime.Running {
			running++
		}
	}
	return wire.WriteJSON(w, http.StatusOK, system.Info{
		ID: a.machineID(), Name: a.cfg.Hostname, ServerVersion: a.cfg.Version,
		Containers: len(containers), ContainersRunning: running, ContainersStopped: len(containers) - running,
		Images: len(images), Driver: "overlayfs",
		DriverStatus: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}},
		Plugins: system.PluginsInfo{
			Volume: []string{"local"}, Network: []string{"bridge", "host", "null", "overlay"}, Log: []string{"json-file"},
		},
		MemoryLimit: true, PidsLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, IPv4Forwarding: true,
		LoggingDriver: "json-file", CgroupDriver: "cgroupfs", CgroupVersion: cgroupVersion(),
		KernelVersion: kernel(), OperatingSystem: operatingSystem(), OSType: goruntime.GOOS, Architecture: architecture(),
		NCPU: goruntime.NumCPU(), MemTotal: memoryBytes(), DockerRootDir: a.cfg.StateDir,
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     &registry.ServiceConfig{IndexConfigs: map[string]*registry.IndexInfo{}},
		SystemTime:         a.cfg.Now().Format(time.RFC3339Nano), NGoroutines: goruntime.NumGoroutine(),
		Runtimes:        map[string]system.RuntimeWithStatus{"runc": {Runtime: system.Runtime{Path: "runc"}}},
		DefaultRuntime:  "runc",
		Swarm:           a.cfg.Swarm(),
		SecurityOptions: []string{"name=seccomp,profile=builtin"},
		Labels:          []string{}, GenericResources: nil, Warnings: nil,
	})
}

// machineID names this daemon in info: stable for the machine's state directory.
func (a *API) machineID() string {
	sum := sha256.Sum256([]byte(a.cfg.Hostname + "\x00" + a.cfg.StateDir))
	return hex.EncodeToString(sum[:16])
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func architecture() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return goruntime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

func memoryBytes() int64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	return int64(s.Totalram) * int64(s.Unit)
}

// cgroupVersion is "2" on a machine with the unified hierarchy (cgroups(7)).
func cgroupVersion() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "2"
	}
	return "1"
}

// operatingSystem is the PRETTY_NAME of os-release(5).
func operatingSystem() string {
	raw, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return goruntime.GOOS
	}
	for _, line := range strings.Split(string(raw), "\n") {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return goruntime.GOOS
}

// Resources returns the node's processors (1e-9 CPUs) and memory (bytes), as the
// scheduler counts them.
func Resources() (nanoCPUs, bytes int64) { return int64(goruntime.NumCPU()) * 1e9, memoryBytes() }
