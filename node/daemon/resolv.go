package daemon

import (
	"net"
	"net/netip"
	"os"
	"strings"

	"shoal/control/api"
)

// hostResolvConf is where the node's own name servers are listed, resolv.conf(5).
const hostResolvConf = "/etc/resolv.conf"

// upstreams are the node's own name servers, host:port.
func upstreams() []string {
	raw, err := os.ReadFile(hostResolvConf)
	if err != nil {
		return nil
	}
	return nameServers(string(raw))
}

func nameServers(text string) (out []string) {
	for _, fields := range directives(text, "nameserver") {
		if a, err := netip.ParseAddr(fields[0]); err == nil {
			out = append(out, net.JoinHostPort(a.String(), "53"))
		}
	}
	return out
}

func directives(text, keyword string) (found [][]string) {
	for _, line := range strings.Split(text, "\n") {
		if f := strings.Fields(line); len(f) > 1 && f[0] == keyword {
			found = append(found, f[1:])
		}
	}
	return found
}

// taskResolvConf is what a task gets as /etc/resolv.conf: the node's name server
// for tasks, the task's own search list and options or the node's.
func taskResolvConf(t *api.Task) string {
	var host string
	if raw, err := os.ReadFile(hostResolvConf); err == nil {
		host = string(raw)
	}
	return resolvConf(t, host)
}

func resolvConf(t *api.Task, host string) string {
	var b strings.Builder
	b.WriteString("nameserver 127.0.0.11\n")
	var search, options []string
	if c := t.Spec.ContainerSpec; c != nil && c.DNSConfig != nil {
		search, options = c.DNSConfig.Search, c.DNSConfig.Options
	}
	if len(search) == 0 {
		for _, fields := range directives(host, "search") { // the last one counts
			search = fields
		}
	}
	if len(search) > 0 && search[0] != "." {
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	if len(options) == 0 {
		options = []string{"ndots:0"}
	}
	b.WriteString("options " + strings.Join(options, " ") + "\n")
	return b.String()
}
