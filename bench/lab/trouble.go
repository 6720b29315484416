package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// shimSockets is where shims put their sockets whatever containerd says.
const shimSockets = "/run/containerd/s"

// everything is the host's daemon, its tasks' name server and its containers'
// processes.
func (l *Lab) everything(h Host) ([]process, error) {
	list, err := l.shims(h.Namespace)
	if err != nil {
		return nil, err
	}
	servers, err := h.nameServers()
	if err != nil {
		return nil, err
	}
	list = append(servers, list...)
	if daemon, runs := recorded(h.pidFile()); runs {
		list = append([]process{daemon}, list...)
	}
	return list, nil
}

// nameServers are the processes that answer for the host's tasks, known by their
// command line: shoald resolver DIR.
func (h Host) nameServers() (found []process, err error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if args := arguments(p.pid); len(args) == 3 && args[1] == "resolver" && args[2] == filepath.Join(h.Dir, "exec", "resolver") {
			found = append(found, p)
		}
	}
	return found, nil
}

// NameServerPids are the processes that answer for the host's tasks.
func (h Host) NameServerPids() (pids []int, err error) {
	list, err := h.nameServers()
	for _, p := range list {
		pids = append(pids, p.pid)
	}
	return pids, err
}

// KillNameServer kills what answers for the host's tasks.
func (l *Lab) KillNameServer(ctx context.Context, h Host) error {
	list, err := h.nameServers()
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("no name server runs on %s", h.Name)
	}
	if err != nil {
		return err
	}
	return killAll(ctx, list)
}

// PowerCut takes a host's cable out and kills its daemon, its shims and its
// tasks: nothing of it gets to say goodbye.
func (l *Lab) PowerCut(ctx context.Context, h Host) error {
	if err := l.setLink(ctx, h, "down"); err != nil {
		return err
	}
	list, err := l.everything(h)
	if err != nil {
		return err
	}
	sockets := socketsOf(list)
	if err := killAll(ctx, list); err != nil {
		return err
	}
	return removeFiles(sockets)
}

// KillDaemon kills a host's shoald; its tasks go on.
func (l *Lab) KillDaemon(ctx context.Context, h Host) error {
	daemon, runs := recorded(h.pidFile())
	if !runs {
		return fmt.Errorf("shoald does not run on %s", h.Name)
	}
	return killAll(ctx, []process{daemon})
}

// stopPatience is how long a daemon may take to stop.
const stopPatience = 20 * time.Second

// StopDaemon asks a host's shoald to stop, as an upgrade does; its tasks go on.
func (l *Lab) StopDaemon(ctx context.Context, h Host) error {
	daemon, runs := recorded(h.pidFile())
	if !runs {
		return fmt.Errorf("shoald does not run on %s", h.Name)
	}
	if err := daemon.signal(syscall.SIGTERM); err != nil {
		return err
	}
	return until(ctx, stopPatience, "the end of shoald on "+h.Name, func() error {
		if daemon.alive() {
			return fmt.Errorf("process %d still runs", daemon.pid)
		}
		return nil
	})
}

// Freeze stops every process of a host where it is.
func (l *Lab) Freeze(h Host) error { return l.signalAll(h, syscall.SIGSTOP) }

// Thaw lets a frozen host go on.
func (l *Lab) Thaw(h Host) error { return l.signalAll(h, syscall.SIGCONT) }

func (l *Lab) signalAll(h Host, s syscall.Signal) error {
	list, err := l.everything(h)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range list {
		errs = append(errs, p.signal(s))
	}
	return errors.Join(errs...)
}

// Unplug takes a host's cable out; Plug puts it in.
func (l *Lab) Unplug(ctx context.Context, h Host) error { return l.setLink(ctx, h, "down") }

// Plug puts a host's cable in.
func (l *Lab) Plug(ctx context.Context, h Host) error { return l.setLink(ctx, h, "up") }

// Heal puts every cable in, thaws what is frozen, starts what does not run and
// waits until all nodes are ready.
func (l *Lab) Heal(ctx context.Context) error {
	if err := l.startContainerd(ctx); err != nil {
		return err
	}
	for _, h := range l.Hosts() {
		if err := l.Plug(ctx, h); err != nil {
			return err
		}
		if err := l.Thaw(h); err != nil {
			return err
		}
	}
	if l.cfg.Shoald == "" {
		return nil
	}
	if err := l.startDaemons(ctx); err != nil {
		return err
	}
	return l.Ready(ctx)
}

// socketsOf are the shims' sockets, which a killed shim leaves. A shim's working
// directory is its bundle, whose file address says where it listens.
func socketsOf(list []process) []string {
	var sockets []string
	for _, p := range list {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cwd/address", p.pid))
		if err != nil {
			continue
		}
		path := strings.TrimPrefix(strings.TrimSpace(string(raw)), "unix://")
		if filepath.Dir(path) == shimSockets {
			sockets = append(sockets, path)
		}
	}
	return sockets
}

func removeFiles(paths []string) error {
	var errs []error
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove what a shim left: %w", err))
		}
	}
	return errors.Join(errs...)
}
