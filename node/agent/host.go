package agent

import (
	"strings"

	"shoal/control/api"
)

// What differs for a task in the node's own network, as in Docker (moby,
// daemon/container_operations.go): it is called as its node is, and has the
// machine's own /etc/hosts and resolv.conf.

// ownHostname is the name of a task that is given none.
func (w *worker) ownHostname(t *api.Task) string {
	if t.OnHost() {
		return w.a.cfg.Hostname
	}
	return w.containerID()[:12]
}

// localHosts is how the task's /etc/hosts begins.
func (w *worker) localHosts(t *api.Task) string {
	if t.OnHost() && w.a.cfg.MachineHosts != nil {
		if text := w.a.cfg.MachineHosts(); text != "" {
			return strings.TrimSuffix(text, "\n") + "\n"
		}
	}
	return "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
}
