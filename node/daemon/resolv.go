package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"shoal/control/api"
	"shoal/dns/resolvconf"
	"shoal/dns/server"
	"shoal/node/resolver"
)

// nameServer is where a task is told to ask.
var nameServer = netip.MustParseAddr("127.0.0.11")

// machineConf is the machine's resolv.conf, read again when it has changed.
type machineConf struct {
	path string

	mu      sync.Mutex
	changed time.Time
	text    string
	conf    resolvconf.Config
}

// read returns what the file says; one that cannot be read says what it said last.
func (m *machineConf) read() (conf resolvconf.Config, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := os.Stat(m.path)
	if err != nil || info.ModTime().Equal(m.changed) {
		return m.conf, m.text
	}
	if raw, err := os.ReadFile(m.path); err == nil {
		m.text, m.changed = string(raw), info.ModTime()
		m.conf = resolvconf.Parse(m.text)
	}
	return m.conf, m.text
}

// ownDNS is what a task asks for, list by list, or else what the daemon was told
// to give every task.
func (d *Daemon) ownDNS(t *api.Task) resolvconf.Config {
	out := d.cfg.DNS
	if c := t.Spec.ContainerSpec; c != nil && c.DNSConfig != nil {
		task := c.DNSConfig
		if len(task.Nameservers) > 0 {
			out.Servers = task.Nameservers
		}
		if len(task.Search) > 0 {
			out.Search = task.Search
		}
		if len(task.Options) > 0 {
			out.Options = task.Options
		}
	}
	return out
}

// taskResolvConf is what a task gets as /etc/resolv.conf: the node's name server
// for tasks, its own search list and options, or the machine's. In the node's own
// network nobody answers at that address: such a task has the machine's file.
func (d *Daemon) taskResolvConf(t *api.Task) string {
	if t.OnHost() {
		return d.hostResolvConf(t)
	}
	machine, _ := d.machine.read()
	return resolvconf.Merge(d.ownDNS(t), machine).File(nameServer)
}

// hostResolvConf is the machine's file as it is, or with what the task wants
// otherwise in its place.
func (d *Daemon) hostResolvConf(t *api.Task) string {
	own := d.ownDNS(t)
	machine, text := d.machine.read()
	if len(own.Servers)+len(own.Search)+len(own.Options) == 0 {
		return text
	}
	return resolvconf.Merge(own, machine).Direct()
}

// machineHosts is the machine's /etc/hosts, "" where it has none.
func machineHosts() string {
	raw, err := os.ReadFile("/etc/hosts")
	if err != nil {
		return ""
	}
	return string(raw)
}

// questions says how a task's questions are answered. The address of the task's
// own name server is nobody to ask further.
func (d *Daemon) questions(t *api.Task) server.Task {
	own := d.ownDNS(t)
	machine, _ := d.machine.read()
	ndots, _ := resolvconf.Merge(own, machine).Ndots()
	others := slices.DeleteFunc(slices.Clone(own.Servers), func(a netip.Addr) bool { return a == nameServer })
	return server.Task{
		Servers: resolvconf.Targets(others), Whole: ndots > 0,
		Inside: len(own.Servers) > 0 && len(others) == 0,
	}
}

// startNames finds or starts the process that answers the tasks' questions.
func (d *Daemon) startNames() (*resolver.Client, error) {
	return resolver.Start(resolver.Config{
		Dir: filepath.Join(d.cfg.ExecDir, resolver.Command), Program: "/proc/self/exe",
		Machine: d.machine.path, Logger: d.cfg.Logger,
	})
}
