package containerd

import (
	"fmt"
	"path"
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
func bindMounts(c *runtime.Container) []specs.Mount {
	var mounts []specs.Mount
	for _, lent := range []struct{ source, target string }{
		{c.ResolvConf, "/etc/resolv.conf"}, {c.Hosts, "/etc/hosts"}, {c.HostnameFile, "/etc/hostname"},
	} {
		if lent.source != "" {
			mounts = append(mounts, specs.Mount{Destination: lent.target, Type: "bind", Source: lent.source, Options: []string{"rbind", "rprivate"}})
		}
	}
	for _, wish := range c.Mounts {
		mounts = append(mounts, ociMount(wish))
	}
	return mounts
}

func ociMount(wish runtime.Mount) specs.Mount {
	m := specs.Mount{Destination: path.Clean(wish.Target), Type: wish.Type}
	if wish.Type == "bind" {
		m.Source = wish.Source
		m.Options = []string{"rbind", first(wish.Propagation, "rprivate")}
	} else {
		m.Source = "tmpfs"
		m.Options = []string{"nosuid", "nodev", "noexec"}
		if wish.Size > 0 {
			m.Options = append(m.Options, fmt.Sprintf("size=%d", wish.Size))
		}
		if wish.Mode != 0 {
			m.Options = append(m.Options, "mode="+strconv.FormatUint(uint64(wish.Mode), 8))
		}
	}
	if wish.ReadOnly {
		m.Options = append(m.Options, "ro")
	}
	return m
}
