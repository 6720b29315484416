//go:build lab

package containerd

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	shoal "shoal/node/runtime"
	"shoal/node/runtime/runtimetest"
)

// bench is a runtime with the suite's image, whose processes can be replaced.
type bench struct {
	*testing.T
	d *daemon
	r *Runtime
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, d: newDaemon(t)}
	b.r = b.d.open(t)
	t.Cleanup(func() {
		all, err := b.r.List(b.ctx())
		b.must(err)
		for _, c := range all {
			b.must(b.r.Remove(b.ctx(), c.ID))
		}
		b.must(b.r.Close())
		removeCgroups(t)
	})
	_, err := b.r.Load(b.ctx(), runtimetest.Archive(t, runtimetest.Image))
	b.must(err)
	return b
}

func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Patience)
	b.Cleanup(cancel)
	return ctx
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// restart is what a kill of the daemon and a new one are for the runtime.
func (b *bench) restart() {
	b.Helper()
	b.must(b.r.Close())
	b.r = b.d.open(b.T)
}

func (b *bench) spec(args ...string) shoal.Container {
	id := runtimetest.NewID()
	return shoal.Container{ID: id, Name: "web.1", Image: runtimetest.Image, Args: args, Hostname: "web",
		LogPath: filepath.Join(b.d.dir, "logs", id)}
}

func (b *bench) start(c shoal.Container) int {
	b.Helper()
	b.must(b.r.Create(b.ctx(), c))
	pid, err := b.r.Start(b.ctx(), c.ID)
	b.must(err)
	return pid
}

// output runs a container to its end and returns its status and its log.
func (b *bench) output(c shoal.Container) (shoal.Status, string) {
	b.Helper()
	b.start(c)
	status, err := b.r.Wait(b.ctx(), c.ID)
	b.must(err)
	return status, b.log(c)
}

// log is the log once it is complete: the task is deleted after the log writer's end.
func (b *bench) log(c shoal.Container) string {
	b.Helper()
	found, err := b.r.find(c.ID)
	b.must(err)
	if found.gone != nil {
		<-found.gone
	}
	raw, err := os.ReadFile(c.LogPath)
	b.must(err)
	return string(raw)
}

func TestRestartKeepsRunning(t *testing.T) {
	b := newBench(t)
	c := b.spec("run")
	pid := b.start(c)
	waitLog(b, c, "ready")
	b.restart()
	status, err := b.r.Get(b.ctx(), c.ID)
	b.must(err)
	if status.State != shoal.Running || status.PID != pid || status.Name != c.Name {
		t.Fatalf("after the restart: %+v", status)
	}
	b.must(b.r.Stop(b.ctx(), c.ID, runtimetest.Patience))
	status, err = b.r.Wait(b.ctx(), c.ID)
	if err != nil || status.ExitCode != 143 {
		t.Errorf("end: %+v %v", status, err)
	}
}

func TestEndWhileAway(t *testing.T) {
	b := newBench(t)
	c := b.spec("run")
	pid := b.start(c)
	waitLog(b, c, "ready")
	b.must(b.r.Close())
	b.must(syscall.Kill(pid, syscall.SIGTERM))
	b.r = b.d.open(t)
	status, err := b.r.Wait(b.ctx(), c.ID)
	if err != nil || status.ExitCode != 143 || status.FinishedAt.Before(status.StartedAt) {
		t.Errorf("end: %+v %v", status, err)
	}
	b.restart()
	status, err = b.r.Get(b.ctx(), c.ID)
	if err != nil || status.State != shoal.Exited || status.ExitCode != 143 {
		t.Errorf("after one more restart: %+v %v", status, err)
	}
}

// waitLog waits for a text in a log of a container that still runs.
func waitLog(b *bench, c shoal.Container, text string) {
	b.Helper()
	ctx := b.ctx()
	for {
		raw, _ := os.ReadFile(c.LogPath) // it is not there at first
		if strings.Contains(string(raw), text) {
			return
		}
		select {
		case <-ctx.Done():
			b.Fatalf("no %q in %s", text, raw)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestShimKilled(t *testing.T) {
	b := newBench(t)
	c := b.spec("stubborn")
	pid := b.start(c)
	killShim(b, pid)
	status, err := b.r.Wait(b.ctx(), c.ID)
	if err != nil || status.ExitCode != 137 {
		t.Errorf("end: %+v %v", status, err)
	}
}

// killShim kills the shim above a container's process. Its socket, outside
// containerd's directories, is what a killed shim leaves.
func killShim(b *bench, pid int) {
	b.Helper()
	shim := parentOf(b, pid)
	address, err := os.ReadFile("/proc/" + strconv.Itoa(shim) + "/cwd/address")
	b.must(err)
	b.must(syscall.Kill(shim, syscall.SIGKILL))
	b.must(os.Remove(strings.TrimPrefix(string(address), "unix://")))
}

func parentOf(b *bench, pid int) int {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	b.must(err)
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')'):]))
	parent, err := strconv.Atoi(fields[2])
	b.must(err)
	return parent
}

func TestContainerdRestarts(t *testing.T) {
	b := newBench(t)
	c := b.spec("run")
	b.start(c)
	waitLog(b, c, "ready")
	b.d.stop(t)
	b.d.start(t)
	b.must(eventually(b, func() error { return b.r.Kill(b.ctx(), c.ID, "TERM") }))
	status, err := b.r.Wait(b.ctx(), c.ID)
	if err != nil || status.ExitCode != 143 {
		t.Errorf("end: %+v %v", status, err)
	}
}

func eventually(b *bench, try func() error) error {
	ctx := b.ctx()
	for {
		err := try()
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestPowerCut(t *testing.T) {
	b := newBench(t)
	ran, made := b.spec("stubborn"), b.spec("run")
	pid := b.start(ran)
	b.must(b.r.Create(b.ctx(), made))
	b.must(b.r.Close())
	b.d.stop(t)
	killShim(b, pid)
	b.must(syscall.Kill(pid, syscall.SIGKILL))
	b.d.start(t)
	b.r = b.d.open(t)
	status, err := b.r.Wait(b.ctx(), ran.ID)
	if err != nil || status.ExitCode != 137 {
		t.Errorf("what ran: %+v %v", status, err)
	}
	if _, err := b.r.Start(b.ctx(), made.ID); err != nil {
		t.Errorf("what was only made cannot be started: %v", err)
	}
}

func TestSweep(t *testing.T) {
	b := newBench(t)
	lost, half, whole := b.spec("stubborn"), b.spec("run"), b.spec("run")
	pid := b.start(lost)
	b.must(b.r.Create(b.ctx(), half))
	b.must(b.r.Create(b.ctx(), whole))
	// One whose record is gone or damaged, and one that was never finished.
	b.must(os.WriteFile(b.r.cfg.recordPath(lost.ID), []byte("{"), 0o600))
	b.must(b.r.client.ContainerService().Delete(b.r.scope(b.ctx()), half.ID))
	b.restart()
	all, err := b.r.List(b.ctx())
	b.must(err)
	if len(all) != 1 || all[0].ID != whole.ID {
		t.Errorf("after the sweep: %+v", all)
	}
	found, err := b.r.leftovers(b.r.scope(b.ctx()))
	b.must(err)
	if len(found.tasks) != 0 || len(found.containers) != 1 || len(found.snapshots) != 1 {
		t.Errorf("in containerd: %+v", found)
	}
	if syscall.Kill(pid, 0) == nil {
		t.Error("the lost container runs on")
	}
	b.must(b.r.Create(b.ctx(), lost))
}

func TestLogs(t *testing.T) {
	b := newBench(t)
	c := b.spec("print", "hello", "1000")
	_, log := b.output(c)
	if out := strings.Count(log, `{"log":"hello\n","stream":"stdout","time":"`); out != 1000 {
		t.Errorf("%d lines of standard output", out)
	}
	if strings.Count(log, `"stream":"stderr"`) != 1 {
		t.Error("no standard error")
	}
	b.must(b.r.Remove(b.ctx(), c.ID))
	if _, err := os.Stat(c.LogPath); !os.IsNotExist(err) {
		t.Errorf("the log outlives the container: %v", err)
	}
}

func TestLogGoesOnWithoutDaemon(t *testing.T) {
	b := newBench(t)
	c := b.spec("chatter")
	b.start(c)
	waitLog(b, c, "line 10")
	b.must(b.r.Close())
	before, err := os.Stat(c.LogPath)
	b.must(err)
	b.must(eventually(b, func() error {
		now, err := os.Stat(c.LogPath)
		if err == nil && now.Size() <= before.Size() {
			return os.ErrDeadlineExceeded
		}
		return err
	}))
	b.r = b.d.open(t)
	b.must(b.r.Kill(b.ctx(), c.ID, "KILL"))
	b.must(second(b.r.Wait(b.ctx(), c.ID)))
}

func second(_ shoal.Status, err error) error { return err }

func TestEnvironmentAndUser(t *testing.T) {
	b := newBench(t)
	for user, want := range map[string]string{
		"": "uid=0 gid=0", "anna": "uid=1000 gid=1001", "1000": "uid=1000 gid=1001", "7:8": "uid=7 gid=8", "anna:boats": "uid=1000 gid=2000",
	} {
		c := b.spec("env")
		c.User, c.WorkingDir, c.Env = user, "/etc", []string{"A=b", "PATH=/x"}
		_, log := b.output(c)
		for _, text := range []string{want, "wd=/etc", "A=b", "PATH=/x", "HOSTNAME=web"} {
			if !strings.Contains(log, text) {
				t.Errorf("user %q: no %q in %s", user, text, log)
			}
		}
	}
	c := b.spec("env")
	c.User = "nobody-knows"
	if err := b.r.Create(b.ctx(), c); err == nil || !strings.Contains(err.Error(), "unable to find user nobody-knows") {
		t.Errorf("unknown user: %v", err)
	}
}

func TestMountsAndFiles(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	b.must(os.WriteFile(filepath.Join(dir, "file"), []byte("from outside"), 0o644))
	c := b.spec("files", "/etc/hosts", "/mnt/file", "/proc/self/mounts", "/proc/sys/net/ipv4/ip_forward")
	c.Hosts, c.ReadOnly = filepath.Join(dir, "file"), true
	c.Mounts = []shoal.Mount{
		{Type: "bind", Source: dir, Target: "/mnt", ReadOnly: true},
		{Type: "tmpfs", Target: "/scratch", Size: 1 << 20, Mode: 0o1777},
	}
	_, log := b.output(c)
	if strings.Count(log, "from outside") != 2 {
		t.Errorf("the mounted files are not there: %s", log)
	}
	for _, text := range []string{"/scratch tmpfs rw,nosuid,nodev,noexec", "size=1024k", " / overlay ro", "/sys/fs/cgroup"} {
		if !strings.Contains(log, text) && b.r.snapshotter == "overlayfs" {
			t.Errorf("no %q in %s", text, log)
		}
	}
}

func TestTerminal(t *testing.T) {
	b := newBench(t)
	c := b.spec("print", "hello", "3")
	c.TTY = true
	_, log := b.output(c)
	if strings.Count(log, `"log":"hello\r\n"`) != 4 || strings.Contains(log, "stderr") {
		t.Errorf("log of a terminal: %s", log)
	}
}

func TestOutOfMemory(t *testing.T) {
	b := newBench(t)
	c := b.spec("eat")
	c.Limits = shoal.Limits{MemoryBytes: 48 << 20, NanoCPUs: 5e8, Pids: 64}
	status, log := b.output(c)
	if status.ExitCode != 137 || !status.OOMKilled {
		t.Errorf("end: %+v %s", status, log)
	}
}

func TestCannotStart(t *testing.T) {
	b := newBench(t)
	c := b.spec("x")
	c.Entrypoint = []string{"/no/such/program"}
	b.must(b.r.Create(b.ctx(), c))
	_, err := b.r.Start(b.ctx(), c.ID)
	if err == nil || !strings.Contains(err.Error(), `exec: "/no/such/program": stat /no/such/program: no such file or directory`) {
		t.Errorf("start: %v", err)
	}
	b.must(b.r.Remove(b.ctx(), c.ID))
}

func TestInitIsRefusedWithoutOne(t *testing.T) {
	b := newBench(t)
	c := b.spec("exit", "4")
	c.Init = true
	if _, err := findInit(); err != nil {
		if err := b.r.Create(b.ctx(), c); err == nil || !strings.Contains(err.Error(), `exec: "docker-init"`) {
			t.Errorf("create: %v", err)
		}
		return
	}
	if status, log := b.output(c); status.ExitCode != 4 {
		t.Errorf("under an init: %+v %s", status, log)
	}
}
