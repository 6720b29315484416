package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runcState is where runc, driven by containerd, keeps its state whatever
// containerd's own directories are.
const runcState = "/run/containerd/runc"

// Down ends the lab's processes and takes away everything it made. It goes on
// after a failure and tells all failures.
func (l *Lab) Down(ctx context.Context) error {
	// First containerd, which would clean up after every shim that dies, and so
	// make files again that are taken away here.
	errs := []error{l.stopContainerd(ctx)}
	for _, h := range l.Hosts() {
		list, err := l.everything(h)
		sockets := socketsOf(list)
		errs = append(errs, err, killAll(ctx, list), removeFiles(sockets))
	}
	errs = append(errs, l.unmount())
	errs = append(errs, l.removeNetwork(ctx))
	for _, h := range l.Hosts() {
		errs = append(errs, removeCgroups(h.Namespace), remove(filepath.Join(runcState, h.Namespace)))
	}
	// Directories of the machine that may have been made on the way, kept when
	// anything else is in them.
	for _, dir := range append(cgroups(""), runcState, shimSockets, filepath.Dir(runcState)) {
		_ = os.Remove(dir)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take the lab down: %w", err)
	}
	return remove(l.cfg.Dir)
}

func remove(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

// stopContainerd asks it to end, then kills it.
func (l *Lab) stopContainerd(ctx context.Context) error {
	p, runs := recorded(l.containerdPidFile())
	if !runs {
		return nil
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	ended := until(ctx, 10*time.Second, "containerd's end", func() error {
		if p.alive() {
			return fmt.Errorf("process %d still runs", p.pid)
		}
		return nil
	})
	if ended != nil {
		return killAll(ctx, []process{p})
	}
	return nil
}

// unmount detaches every mount below the lab's directory, the last made first.
func (l *Lab) unmount() error {
	mounts, err := l.mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, point := range slices.Backward(mounts) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", point, err))
		}
	}
	return errors.Join(errs...)
}

func (l *Lab) mounts() ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list the mounts: %w", err)
	}
	defer file.Close()
	var points []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if point, ok := mountPoint(lines.Text()); ok && under(l.cfg.Dir, point) {
			points = append(points, point)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list the mounts: %w", err)
	}
	return points, nil
}

// mountPoint is the fifth field of a line of mountinfo, in which blanks are
// written as octal numbers.
func mountPoint(line string) (string, bool) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return "", false
	}
	var point strings.Builder
	for rest := fields[4]; rest != ""; {
		if rest[0] == '\\' && len(rest) >= 4 {
			if code, err := strconv.ParseUint(rest[1:4], 8, 8); err == nil {
				point.WriteByte(byte(code))
				rest = rest[4:]
				continue
			}
		}
		point.WriteByte(rest[0])
		rest = rest[1:]
	}
	return point.String(), true
}

func under(dir, path string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// cgroups are the directories of a containerd namespace, or of all when it is
// "", in the one hierarchy of version 2 or the many of version 1.
func cgroups(namespace string) []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/shoal", "/sys/fs/cgroup/*/shoal"} {
		// The pattern is constant and well formed, which is Glob's only error.
		matches, _ := filepath.Glob(filepath.Join(pattern, namespace))
		found = append(found, matches...)
	}
	return found
}

// removeCgroups removes the tree of a namespace, the deepest first: files in it
// are the kernel's and go with their directory.
func removeCgroups(namespace string) error {
	var errs []error
	for _, top := range cgroups(namespace) {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		errs = append(errs, err)
		for _, dir := range slices.Backward(dirs) {
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, fmt.Errorf("remove a cgroup: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// Leftovers lists what is on the machine of a lab, up or down: namespaces,
// links, mounts, processes, cgroups, files. After Down it is empty. A process
// counts that has the lab's directory on its command line, unless it is this
// one or one that it runs under.
func (l *Lab) Leftovers() ([]string, error) {
	var left []string
	note := func(kind string, paths ...string) {
		for _, path := range paths {
			if _, err := os.Lstat(path); err == nil {
				left = append(left, kind+" "+path)
			}
		}
	}
	for _, name := range l.namespaces() {
		note("namespace", filepath.Join(netnsDir, name))
		note("cgroup", cgroups(name)...)
		note("runc state", filepath.Join(runcState, name))
	}
	note("link", "/sys/class/net/"+l.uplink())
	note("directory", l.cfg.Dir)
	mounts, err := l.mounts()
	if err != nil {
		return nil, err
	}
	for _, point := range mounts {
		left = append(left, "mount "+point)
	}
	all, err := processes()
	if err != nil {
		return nil, err
	}
	callers := ancestry(all, os.Getpid())
	for _, p := range all {
		args := arguments(p.pid)
		if !callers[p.pid] && slices.ContainsFunc(args[min(1, len(args)):], func(arg string) bool { return under(l.cfg.Dir, arg) }) {
			left = append(left, fmt.Sprintf("process %d %s", p.pid, strings.Join(args, " ")))
		}
	}
	return left, nil
}

// ancestry is a process and every process above it.
func ancestry(all []process, pid int) map[int]bool {
	parents := map[int]int{}
	for _, p := range all {
		parents[p.pid] = p.parent
	}
	line := map[int]bool{}
	for ; pid > 0 && !line[pid]; pid = parents[pid] {
		line[pid] = true
	}
	return line
}
