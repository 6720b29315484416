package agent

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/plan"
	"shoal/node/runtime"
	"shoal/overlay/endpoint"
)

// volumeName is what Docker takes as the name of a local volume.
var volumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// container turns the task into what the runtime is to make.
func (w *worker) container(t *api.Task, image runtime.Image, namespace string) (runtime.Container, error) {
	c := t.Spec.ContainerSpec
	x := expander{w: w, t: t}
	hostname := cmp.Or(x.expand(c.Hostname), w.ownHostname(t))
	if err := os.MkdirAll(w.home(), 0o700); err != nil {
		return runtime.Container{}, fmt.Errorf("directory of task %s: %w", t.ID, err)
	}
	resolv, hosts, name, err := w.files(t, hostname)
	if err != nil {
		return runtime.Container{}, fmt.Errorf("files of task %s: %w", t.ID, err)
	}
	out := runtime.Container{
		ID: w.containerID(), Name: containerName(t), Image: image.Name,
		Labels: w.labels(t), Entrypoint: c.Command, Args: c.Args, WorkingDir: c.Dir, User: c.User,
		Hostname: hostname, Groups: c.Groups, TTY: c.TTY, OpenStdin: c.OpenStdin, ReadOnly: c.ReadOnly,
		Init: c.Init != nil && *c.Init, StopSignal: c.StopSignal, Limits: limits(t),
		CapAdd: c.CapabilityAdd, CapDrop: c.CapabilityDrop, Sysctls: c.Sysctls, OomScoreAdj: int(c.OomScoreAdj),
		NetNS: namespace, LogPath: filepath.Join(w.home(), "log"), ResolvConf: resolv, Hosts: hosts, HostnameFile: name,
	}
	if !t.Standalone() {
		out.Env = append(out.Env, "SHOAL_TASK="+plan.TaskName(t), "SHOAL_NODE="+w.a.cfg.Hostname)
	}
	for _, e := range c.Env {
		out.Env = append(out.Env, x.expand(e))
	}
	for _, u := range c.Ulimits {
		out.Ulimits = append(out.Ulimits, runtime.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, m := range c.Mounts {
		rm, err := w.mount(m, &x)
		if err != nil {
			return out, err
		}
		out.Mounts = append(out.Mounts, rm)
	}
	return out, x.err
}

// containerName is the whole name of a task's container.
func containerName(t *api.Task) string {
	if t.Standalone() {
		return t.Name
	}
	return plan.TaskName(t) + "." + t.ID
}

// AnonymousVolume is the name of a volume that a container mounts without one.
func AnonymousVolume(containerID, target string) string {
	return containerID + strings.ReplaceAll(target, "/", "-")
}

// labels are the container's own and those that Docker's tools look for.
func (w *worker) labels(t *api.Task) map[string]string {
	out := maps.Clone(t.Spec.ContainerSpec.Labels)
	if out == nil {
		out = map[string]string{}
	}
	if t.Standalone() {
		return out
	}
	out["com.docker.swarm.task"] = ""
	out["com.docker.swarm.task.id"] = t.ID
	out["com.docker.swarm.task.name"] = containerName(t)
	out["com.docker.swarm.node.id"] = w.a.cfg.NodeID
	out["com.docker.swarm.service.id"] = t.ServiceID
	out["com.docker.swarm.service.name"] = t.ServiceName
	return out
}

func limits(t *api.Task) runtime.Limits {
	r := t.Spec.Resources
	if r == nil || r.Limits == nil {
		return runtime.Limits{}
	}
	return runtime.Limits{NanoCPUs: r.Limits.NanoCPUs, MemoryBytes: r.Limits.MemoryBytes, Pids: r.Limits.Pids}
}

func (w *worker) mount(m mount.Mount, x *expander) (runtime.Mount, error) {
	out := runtime.Mount{Type: string(m.Type), Source: x.expand(m.Source), Target: x.expand(m.Target), ReadOnly: m.ReadOnly}
	switch m.Type {
	case mount.TypeBind:
		if m.BindOptions != nil {
			out.Propagation = string(m.BindOptions.Propagation)
		}
		if m.BindOptions != nil && m.BindOptions.CreateMountpoint {
			if err := os.MkdirAll(out.Source, 0o755); err != nil {
				return out, fmt.Errorf("mount at %s: %w", out.Target, err)
			}
		}
		if _, err := os.Stat(out.Source); err != nil {
			return out, fmt.Errorf("invalid mount config for type %q: bind source path does not exist: %s", m.Type, out.Source)
		}
	case mount.TypeVolume:
		out.Type = "bind"
		name := out.Source
		if name == "" {
			name = AnonymousVolume(w.containerID(), out.Target)
		}
		if !volumeName.MatchString(name) {
			return out, fmt.Errorf("%q includes invalid characters for a local volume name, only %q are allowed",
				name, "[a-zA-Z0-9][a-zA-Z0-9_.-]")
		}
		out.Source = filepath.Join(w.a.cfg.VolumeDir, name, "_data")
		if err := os.MkdirAll(out.Source, 0o755); err != nil {
			return out, fmt.Errorf("volume %s: %w", name, err)
		}
	case mount.TypeTmpfs:
		if m.TmpfsOptions != nil {
			out.Size, out.Mode = m.TmpfsOptions.SizeBytes, uint32(m.TmpfsOptions.Mode)
		}
	default:
		return out, fmt.Errorf("mount at %s: mounts of type %q are not available on this node", m.Target, m.Type)
	}
	return out, nil
}

// expander fills in the templates that Docker allows in hostname, environment
// and mounts of services; the first error is kept.
type expander struct {
	w   *worker
	t   *api.Task
	err error
}

func (x *expander) expand(text string) string {
	if x.t.Standalone() || !strings.Contains(text, "{{") {
		return text
	}
	tmpl, err := template.New("").Option("missingkey=error").Parse(text)
	var out strings.Builder
	if err == nil {
		err = tmpl.Execute(&out, x.context())
	}
	if err != nil && x.err == nil {
		x.err = fmt.Errorf("template %q: %w", text, err)
	}
	return out.String()
}

func (x *expander) context() any {
	slot := x.t.NodeID
	if x.t.Slot != 0 {
		slot = strconv.Itoa(x.t.Slot)
	}
	type named struct {
		ID, Name string
		Labels   map[string]string
	}
	return map[string]any{
		"Service": named{x.t.ServiceID, x.t.ServiceName, x.t.Labels},
		"Node":    map[string]any{"ID": x.t.NodeID, "Hostname": x.w.a.cfg.Hostname, "Platform": platform},
		"Task":    map[string]any{"ID": x.t.ID, "Name": plan.TaskName(x.t) + "." + x.t.ID, "Slot": slot},
	}
}

// hostsFile is the task's /etc/hosts.
func (w *worker) hostsFile(t *api.Task, hostname string) string {
	var b strings.Builder
	b.WriteString(w.localHosts(t))
	for _, a := range t.NetworksAttachments {
		if a.Network.Spec.Ingress {
			continue
		}
		for _, p := range w.a.addresses(a) {
			fmt.Fprintf(&b, "%s\t%s\n", p.Addr(), hostname)
		}
	}
	for _, h := range t.Spec.ContainerSpec.Hosts { // "address name [alias…]" as hosts(5) has it
		b.WriteString(h + "\n")
	}
	return b.String()
}

// endpoint is what the task's record says, but for its state.
func (w *worker) endpoint(t *api.Task) endpoint.Value {
	x := expander{w: w, t: t} // a template that fails has been refused before
	v := endpoint.Value{
		ServiceID: t.ServiceID, ServiceName: t.ServiceName, TaskName: plan.TaskName(t),
		Slot: t.Slot, ContainerID: w.containerID(), Hostname: x.expand(t.Spec.ContainerSpec.Hostname), VTEP: w.a.cfg.VTEP,
	}
	for _, p := range t.Ports {
		v.Ports = append(v.Ports, endpoint.Port{Name: p.Name, Protocol: string(p.Protocol), Port: uint16(p.TargetPort)})
	}
	for _, exposed := range w.local.Exposed {
		if p := (endpoint.Port{Protocol: "tcp", Port: exposed}); !slices.ContainsFunc(v.Ports, func(q endpoint.Port) bool { return q.Port == p.Port && q.Protocol == p.Protocol }) {
			v.Ports = append(v.Ports, p)
		}
	}
	for _, a := range t.NetworksAttachments {
		at := endpoint.Attachment{NetworkID: a.Network.ID, Aliases: aliases(t, a.Network)}
		for _, p := range w.a.addresses(a) {
			at.Addrs = append(at.Addrs, p.Addr())
		}
		if len(at.Addrs) > 0 {
			at.MAC = plan.MAC(at.Addrs[0])
			v.Attachments = append(v.Attachments, at)
		}
	}
	return v
}

// addresses are those of an attachment that the node can give to a task.
func (a *Agent) addresses(at swarm.NetworkAttachment) []netip.Prefix {
	if a.cfg.Addresses == nil {
		return at.Addresses
	}
	return a.cfg.Addresses(at.Addresses)
}

func aliases(t *api.Task, n swarm.Network) []string {
	for _, c := range t.Spec.Networks {
		if c.Target == n.ID || c.Target == n.Spec.Name {
			return c.Aliases
		}
	}
	return nil
}
