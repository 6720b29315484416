package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

const containerdConfig = `version = 2
root = %q
state = %q
disabled_plugins = [
	"io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
	"io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = %q
`

func (l *Lab) containerdDir() string { return filepath.Join(l.cfg.Dir, "containerd") }

func (l *Lab) containerdSocket() string { return filepath.Join(l.containerdDir(), "containerd.sock") }

func (l *Lab) containerdPidFile() string { return filepath.Join(l.containerdDir(), "containerd.pid") }

// startContainerd starts the lab's own containerd, unless it runs, and waits
// for its socket.
func (l *Lab) startContainerd(ctx context.Context) error {
	if _, runs := recorded(l.containerdPidFile()); runs {
		return nil
	}
	dir := l.containerdDir()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make containerd's directory: %w", err)
	}
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf(containerdConfig, filepath.Join(dir, "root"), filepath.Join(dir, "state"), l.containerdSocket())
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write containerd's configuration: %w", err)
	}
	log := filepath.Join(dir, "containerd.log")
	if err := launch(exec.Command("containerd", "-c", config), l.containerdPidFile(), log); err != nil {
		return err
	}
	return l.answers(ctx, l.containerdSocket(), l.containerdPidFile(), log)
}

// answers waits until a daemon accepts connections on its socket, or has ended.
func (l *Lab) answers(ctx context.Context, socket, pidFile, log string) error {
	return until(ctx, l.cfg.Patience, socket, func() error {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			return conn.Close()
		}
		if _, runs := recorded(pidFile); !runs {
			return permanent{fmt.Errorf("the daemon of %s has ended%s", socket, tail(log))}
		}
		return err
	})
}

// startDaemons starts shoald on every host where it does not run.
func (l *Lab) startDaemons(ctx context.Context) error {
	if l.cfg.Shoald == "" {
		return nil
	}
	for _, h := range l.Hosts() {
		if err := l.StartDaemon(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// StartDaemon starts shoald on a host, unless it runs, and waits for its socket.
func (l *Lab) StartDaemon(ctx context.Context, h Host) error {
	if _, runs := recorded(h.pidFile()); !runs {
		// The daemon outlives ctx.
		args := append([]string{l.cfg.Shoald, "run",
			"--state-dir", h.Dir, "--exec-dir", filepath.Join(h.Dir, "exec"), "--socket", h.Socket, "--hostname", h.Name,
			"--containerd", l.containerdSocket(), "--containerd-namespace", h.Namespace}, l.cfg.DaemonFlags...)
		cmd := h.Command(context.WithoutCancel(ctx), args...)
		if err := launch(cmd, h.pidFile(), h.LogFile()); err != nil {
			return fmt.Errorf("start shoald on %s: %w", h.Name, err)
		}
	}
	if err := l.answers(ctx, h.Socket, h.pidFile(), h.LogFile()); err != nil {
		return fmt.Errorf("shoald on %s: %w", h.Name, err)
	}
	return nil
}

// DaemonPid is the process of a host's shoald; false when it does not run.
func (l *Lab) DaemonPid(h Host) (int, bool) {
	p, runs := recorded(h.pidFile())
	return p.pid, runs
}
