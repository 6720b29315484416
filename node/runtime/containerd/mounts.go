package containerd

import (
	"fmt"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"shoal/node/runtime"
)

// baseMounts are the default mounts with the cgroup tree, and without the /run
// that Docker's containers do not have.
func baseMounts(defaults []specs.Mount) []specs.Mount {
	mounts := make([]specs.Mount, 0, len(defaults)+1)
	for _, m := range defaults {
		if m.Destination != "/run" {
			mounts = append(mounts, m)
		}
	}
	return append(mounts, specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"ro", "nosuid", "noexec", "nodev"},
	})
}

// bindMounts are the files that the node lends for /etc, then the wished mounts.
func bindMounts(c *runtime.Container) ([]specs.Mount, error) {
	var mounts []specs.Mount
	for _, lent := range []struct{ source, target string }{
		{c.ResolvConf, "/etc/resolv.conf"}, {c.Hosts, "/etc/hosts"}, {c.HostnameFile, "/etc/hostname"},
	} {
		if lent.source != "" {
			mounts = append(mounts, specs.Mount{Destination: lent.target, Type: "bind", Source: lent.source, Options: []string{"rbind", "rprivate"}})
		}
	}
	for _, wish := range c.Mounts {
		m, err := ociMount(wish)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func ociMount(wish runtime.Mount) (specs.Mount, error) {
	target, err := cleanTarget(wish.Target)
	if err != nil {
		return specs.Mount{}, err
	}
	m := specs.Mount{Destination: target, Type: wish.Type}
	switch wish.Type {
	case "bind":
		if _, err := os.Stat(wish.Source); err != nil {
			return m, runtime.Invalid(`invalid mount config for type "bind": bind source path does not exist: %s`, wish.Source)
		}
		m.Source = wish.Source
		m.Options = []string{"rbind", first(wish.Propagation, "rprivate")}
	case "tmpfs":
		m.Source = "tmpfs"
		m.Options = []string{"nosuid", "nodev", "noexec"}
		if wish.Size > 0 {
			m.Options = append(m.Options, fmt.Sprintf("size=%d", wish.Size))
		}
		if wish.Mode != 0 {
			m.Options = append(m.Options, "mode="+strconv.FormatUint(uint64(wish.Mode), 8))
		}
	default:
		return m, runtime.Invalid("mount type %q of %s is not bind or tmpfs", wish.Type, wish.Target)
	}
	if wish.ReadOnly {
		m.Options = append(m.Options, "ro")
	}
	return m, nil
}
