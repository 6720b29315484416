package dockerapi

import (
	"net/http"

	"github.com/moby/moby/api/types/swarm"
)

// warnings says what of an accepted service will not be done. Whoever asked for
// it must not find out in another way.
func warnings(r *http.Request, spec swarm.ServiceSpec) []string {
	var out []string
	warn := func(when bool, text string) {
		if when {
			out = append(out, text)
		}
	}
	warn(r.Header.Get("X-Registry-Auth") != "", "registry credentials are not kept with the service: nodes pull images with what they have")
	if d := spec.TaskTemplate.LogDriver; d != nil {
		warn(d.Name != "" && d.Name != "json-file", "log driver "+d.Name+" is not available: output goes to json-file logs on the task's node")
	}
	for _, n := range spec.TaskTemplate.Networks {
		warn(len(n.DriverOpts) > 0, "driver options of an attachment have no effect: interfaces are eth0, eth1 and so on, in the order of the networks")
	}
	out = append(out, nodeNetworkWarnings(&spec)...)
	c := spec.TaskTemplate.ContainerSpec
	if c == nil {
		return out
	}
	if p := c.Privileges; p != nil {
		warn(p.Seccomp != nil || p.AppArmor != nil || p.SELinuxContext != nil || p.CredentialSpec != nil || p.NoNewPrivileges,
			"privilege settings (seccomp, AppArmor, SELinux, no-new-privileges, credential spec) are not applied: tasks run with the default profile")
	}
	return out
}
