package agent

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/runtime"
	"shoal/overlay/endpoint"
)

// specTask is a task of a container specification; change what a case needs.
func specTask(change func(*api.Task)) *api.Task {
	t := &api.Task{ServiceName: "web"}
	t.ID, t.ServiceID, t.NodeID, t.Slot = "t1", "svc", "n1", 2
	t.Spec.ContainerSpec = &swarm.ContainerSpec{Image: "web"}
	if change != nil {
		change(t)
	}
	return t
}

func specWorker(t *testing.T, task *api.Task) *worker {
	dir := t.TempDir()
	a := &Agent{cfg: Config{
		NodeID: "n1", Hostname: "host1", Dir: dir, VolumeDir: filepath.Join(dir, "volumes"), Now: time.Now,
		ResolvConf: func(*api.Task) string { return "nameserver 127.0.0.11\n" },
	}}
	return newWorker(a, task.ID, task)
}

func made(t *testing.T, change func(*api.Task)) (runtime.Container, error) {
	t.Helper()
	task := specTask(change)
	return specWorker(t, task).container(task, runtime.Image{Name: "docker.io/library/web:latest"}, "/run/ns/task-t1")
}

func TestContainer(t *testing.T) {
	yes := true
	c, err := made(t, func(t *api.Task) {
		s := t.Spec.ContainerSpec
		s.Command, s.Args, s.Dir, s.User = []string{"/bin/web"}, []string{"-v"}, "/srv", "www"
		s.Groups, s.TTY, s.OpenStdin, s.ReadOnly, s.Init = []string{"adm"}, true, true, true, &yes
		s.StopSignal, s.Sysctls, s.OomScoreAdj = "SIGINT", map[string]string{"net.core.somaxconn": "9"}, 5
		s.CapabilityAdd, s.CapabilityDrop = []string{"CAP_NET_ADMIN"}, []string{"CAP_CHOWN"}
		s.Labels = map[string]string{"mine": "1"}
		t.Spec.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{NanoCPUs: 5e8, MemoryBytes: 1 << 20, Pids: 7}}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []*string{&c.LogPath, &c.ResolvConf, &c.Hosts, &c.HostnameFile} {
		*path = filepath.Base(*path)
	}
	want := runtime.Container{
		ID: ContainerID("t1"), Name: "web.2.t1", Image: "docker.io/library/web:latest",
		Entrypoint: []string{"/bin/web"}, Args: []string{"-v"}, WorkingDir: "/srv", User: "www",
		Hostname: ContainerID("t1")[:12], Groups: []string{"adm"}, TTY: true, OpenStdin: true, ReadOnly: true, Init: true,
		StopSignal: "SIGINT", Limits: runtime.Limits{NanoCPUs: 5e8, MemoryBytes: 1 << 20, Pids: 7},
		CapAdd: []string{"CAP_NET_ADMIN"}, CapDrop: []string{"CAP_CHOWN"},
		Sysctls: map[string]string{"net.core.somaxconn": "9"}, OomScoreAdj: 5, NetNS: "/run/ns/task-t1",
		LogPath: "log", ResolvConf: "resolv.conf", Hosts: "hosts", HostnameFile: "hostname",
		Env: []string{"SHOAL_TASK=web.2", "SHOAL_NODE=host1"},
		Labels: map[string]string{
			"mine": "1", "com.docker.swarm.task": "", "com.docker.swarm.task.id": "t1", "com.docker.swarm.task.name": "web.2.t1",
			"com.docker.swarm.node.id": "n1", "com.docker.swarm.service.id": "svc", "com.docker.swarm.service.name": "web",
		},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestTemplates(t *testing.T) {
	tests := []struct {
		text, want, complaint string
	}{
		{"plain", "plain", ""},
		{"{{.Service.Name}}-{{.Task.Slot}}", "web-2", ""},
		{"{{.Service.ID}} {{.Task.ID}} {{.Task.Name}}", "svc t1 web.2.t1", ""},
		{"{{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}}", "n1 host1 linux", ""},
		{"{{.Service.Labels.tier}}", "front", ""},
		{"{{.Nobody}}", "", `template "{{.Nobody}}"`},
		{"{{", "", `template "{{"`},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			c, err := made(t, func(task *api.Task) {
				task.Labels = map[string]string{"tier": "front"}
				task.Spec.ContainerSpec.Env = []string{"X=" + tt.text}
				task.Spec.ContainerSpec.Hostname = tt.text
			})
			if tt.complaint != "" {
				if err == nil || !strings.Contains(err.Error(), tt.complaint) {
					t.Fatalf("error is %v, want one about %s", err, tt.complaint)
				}
				return
			}
			if err != nil || c.Hostname != tt.want || c.Env[len(c.Env)-1] != "X="+tt.want {
				t.Errorf("host name %q, environment %q (%v), want %q", c.Hostname, c.Env, err, tt.want)
			}
		})
	}
}

func TestTemplateOfAGlobalTask(t *testing.T) {
	c, err := made(t, func(task *api.Task) {
		task.Slot = 0
		task.Spec.ContainerSpec.Hostname = "{{.Task.Slot}}"
	})
	if err != nil || c.Hostname != "n1" || c.Name != "web.n1.t1" {
		t.Errorf("host name %q, name %q, %v", c.Hostname, c.Name, err)
	}
}

func TestMounts(t *testing.T) {
	here := t.TempDir()
	tests := []struct {
		name      string
		mount     mount.Mount
		want      runtime.Mount
		complaint string
	}{
		{"bind", mount.Mount{Type: "bind", Source: here, Target: "/a", ReadOnly: true, BindOptions: &mount.BindOptions{Propagation: "rshared"}},
			runtime.Mount{Type: "bind", Source: here, Target: "/a", ReadOnly: true, Propagation: "rshared"}, ""},
		{"bind of nothing", mount.Mount{Type: "bind", Source: "/no/such", Target: "/a"}, runtime.Mount{},
			`invalid mount config for type "bind": bind source path does not exist: /no/such`},
		{"tmpfs", mount.Mount{Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 64, Mode: 0o700}},
			runtime.Mount{Type: "tmpfs", Target: "/t", Size: 64, Mode: 0o700}, ""},
		{"volume", mount.Mount{Type: "volume", Source: "data-{{.Task.Slot}}", Target: "/v"},
			runtime.Mount{Type: "bind", Source: "VOLUMES/data-2/_data", Target: "/v"}, ""},
		{"volume without a name", mount.Mount{Type: "volume", Target: "/v/w"},
			runtime.Mount{Type: "bind", Source: "VOLUMES/" + ContainerID("t1") + "-v-w/_data", Target: "/v/w"}, ""},
		{"volume that escapes", mount.Mount{Type: "volume", Source: "../data", Target: "/v"}, runtime.Mount{},
			`"../data" includes invalid characters for a local volume name`},
		{"unknown", mount.Mount{Type: "npipe", Target: "/p"}, runtime.Mount{}, `mounts of type "npipe" are not available`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			task := specTask(func(task *api.Task) { task.Spec.ContainerSpec.Mounts = []mount.Mount{tt.mount} })
			w := specWorker(t, task)
			c, err := w.container(task, runtime.Image{}, "")
			if tt.complaint != "" {
				if err == nil || !strings.Contains(err.Error(), tt.complaint) {
					t.Fatalf("error is %v, want one about %s", err, tt.complaint)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Source = strings.Replace(tt.want.Source, "VOLUMES", w.a.cfg.VolumeDir, 1)
			if !slices.Equal(c.Mounts, []runtime.Mount{tt.want}) {
				t.Errorf("got %+v, want %+v", c.Mounts, tt.want)
			}
			if tt.mount.Type == mount.TypeVolume {
				if _, err := os.Stat(tt.want.Source); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestFilesOfATask(t *testing.T) {
	c, err := made(t, func(task *api.Task) {
		task.Spec.ContainerSpec.Hostname = "h"
		task.Spec.ContainerSpec.Hosts = []string{"192.0.2.7 far away"}
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		c.HostnameFile: "h\n", c.ResolvConf: "nameserver 127.0.0.11\n",
		c.Hosts: "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.7 far away\n",
	} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", filepath.Base(path), got, err, want)
		}
	}
}

// TestFilesInTheNodesOwnNetwork are the machine's, with what the service adds.
func TestFilesInTheNodesOwnNetwork(t *testing.T) {
	task := specTask(func(task *api.Task) {
		task.NetworksAttachments = []swarm.NetworkAttachment{{Network: api.NodeNetwork(api.NetworkHost).Network}}
		task.Spec.ContainerSpec.Hosts = []string{"192.0.2.7 far away"}
	})
	for _, tt := range []struct{ machine, hosts string }{
		{"127.0.0.1\tlocalhost\n192.0.2.1\thost1", "127.0.0.1\tlocalhost\n192.0.2.1\thost1\n192.0.2.7 far away\n"},
		{"", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.7 far away\n"},
	} {
		w := specWorker(t, task)
		w.a.cfg.MachineHosts = func() string { return tt.machine }
		c, err := w.container(task, runtime.Image{}, "")
		if err != nil || c.NetNS != "" || c.Hostname != "host1" {
			t.Errorf("namespace %q, hostname %q, %v", c.NetNS, c.Hostname, err)
		}
		if got, err := os.ReadFile(c.Hosts); err != nil || string(got) != tt.hosts {
			t.Errorf("hosts %q (%v), want %q", got, err, tt.hosts)
		}
	}
}

func TestRecordCarriesTheExpandedName(t *testing.T) {
	task := specTask(func(task *api.Task) { task.Spec.ContainerSpec.Hostname = "h-{{.Task.Slot}}" })
	if v := specWorker(t, task).endpoint(task); v.Hostname != "h-2" {
		t.Errorf("the record says %q", v.Hostname)
	}
}

// TestRecordCarriesThePorts: those that the service publishes, by their names, and
// those that the image exposes besides.
func TestRecordCarriesThePorts(t *testing.T) {
	task := specTask(func(task *api.Task) {
		task.Ports = []swarm.PortConfig{{Name: "web", Protocol: "tcp", TargetPort: 80}, {Protocol: "udp", TargetPort: 53}}
	})
	w := specWorker(t, task)
	w.local.Exposed = []uint16{80, 53}
	want := []endpoint.Port{{Name: "web", Protocol: "tcp", Port: 80}, {Protocol: "udp", Port: 53}, {Protocol: "tcp", Port: 53}}
	if got := w.endpoint(task).Ports; !slices.Equal(got, want) {
		t.Errorf("the record has the ports %+v, want %+v", got, want)
	}
}
