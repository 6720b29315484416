//go:build lab

package containerd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"shoal/bench/need"
	"shoal/node/runtime"
	"shoal/node/runtime/runtimetest"
)

// TestMain is also the program of the containers and of their log writers.
func TestMain(m *testing.M) {
	switch {
	case os.Args[0] == runtimetest.Program:
		os.Exit(runtimetest.Main(os.Args[1:]))
	case len(os.Args) == 3 && os.Args[1] == LogCommand:
		LogWriterMain(os.Args[2])
	}
	os.Exit(m.Run())
}

// daemon is a containerd of the test's own.
type daemon struct {
	dir string
	cmd *exec.Cmd
}

const daemonConfig = `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"%s]
[grpc]
address = %q
`

func (d *daemon) socket() string { return filepath.Join(d.dir, "containerd.sock") }

func (d *daemon) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command("containerd", "-c", filepath.Join(d.dir, "config.toml"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = d.cmd.Wait() // killed on purpose
}

func newDaemon(t *testing.T, disabled ...string) *daemon {
	t.Helper()
	_, err := exec.LookPath("containerd")
	if os.Getuid() != 0 {
		err = fmt.Errorf("not root")
	}
	need.Feature(t, "containerd", err)
	// The path of a unix socket is short, so not under t.TempDir.
	dir, err := os.MkdirTemp("", "rt")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: dir}
	more := ""
	for _, plugin := range disabled {
		more += fmt.Sprintf(", %q", plugin)
	}
	config := fmt.Sprintf(daemonConfig, filepath.Join(dir, "root"), filepath.Join(dir, "state"), more, d.socket())
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	t.Cleanup(func() {
		d.stop(t)
		if t.Failed() {
			raw, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("containerd's log:\n%s", raw[max(0, len(raw)-3000):])
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("something is left: %v", err)
		}
	})
	return d
}

func (d *daemon) open(t *testing.T) *Runtime {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Patience)
	defer cancel()
	r, err := New(ctx, Config{Address: d.socket(), Namespace: "shoal-test", StateDir: filepath.Join(d.dir, "node")})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newRuntime(t *testing.T, disabled ...string) *Runtime {
	d := newDaemon(t, disabled...)
	r := d.open(t)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		removeCgroups(t)
	})
	return r
}

// removeCgroups removes the empty directories that runc and shims leave.
func removeCgroups(t *testing.T) {
	for _, pattern := range []string{"/sys/fs/cgroup/shoal/shoal-test", "/sys/fs/cgroup/*/shoal/shoal-test", "/sys/fs/cgroup/shoal", "/sys/fs/cgroup/*/shoal", "/run/containerd/runc/shoal-test", "/run/containerd/runc", "/run/containerd/s", "/run/containerd"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Error(err)
		}
		for _, dir := range found {
			_ = os.Remove(dir) // another's containers may be in it
		}
	}
}

func TestSuite(t *testing.T) {
	runtimetest.Suite(t, func(t *testing.T) runtime.Runtime {
		return newRuntime(t)
	})
}

// TestSuiteWithoutOverlay is for hosts whose file system cannot be overlaid.
func TestSuiteWithoutOverlay(t *testing.T) {
	runtimetest.Suite(t, func(t *testing.T) runtime.Runtime {
		r := newRuntime(t, "io.containerd.snapshotter.v1.overlayfs")
		if r.Snapshotter() != "native" {
			t.Fatalf("snapshotter %s", r.Snapshotter())
		}
		return r
	})
}

func TestStartTime(t *testing.T) {
	r := newRuntime(t)
	ctx := t.Context()
	if _, err := r.Load(ctx, runtimetest.Archive(t, runtimetest.Image)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		c := runtime.Container{ID: runtimetest.NewID(), Image: runtimetest.Image, Args: []string{"run"}, LogPath: filepath.Join(r.cfg.StateDir, "log")}
		begin := time.Now()
		if err := r.Create(ctx, c); err != nil {
			t.Fatal(err)
		}
		created := time.Since(begin)
		if _, err := r.Start(ctx, c.ID); err != nil {
			t.Fatal(err)
		}
		started := time.Since(begin)
		if err := r.Remove(ctx, c.ID); err != nil {
			t.Fatal(err)
		}
		t.Logf("create %v, start %v, remove %v", created, started-created, time.Since(begin)-started)
	}
}
