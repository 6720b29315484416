// Package netns makes, names, enters and deletes network namespaces. A
// namespace is named by a path: a regular file on which the namespace is
// bind-mounted, so that it lives without a process and any program in the same
// mount namespace (containerd, runc, ip -n) can open it.
//
// It is the only place of the module that locks threads, calls setns(2) or
// unshare(2). A thread that could not be brought back to its own namespace is
// never used again: its goroutine ends while it is locked, and the runtime
// destroys the thread.
//
// The mounts are ordinary bind mounts with the propagation of the directory
// they are in. A program in a mount namespace of its own sees them where that
// namespace is a slave or peer of ours (what systemd makes), and the caller
// itself must run in the machine's mount namespace. Deletion unlinks the file,
// which makes the kernel drop the mount in every other mount namespace that
// has a copy of it, so that no forgotten copy keeps a namespace alive.
//
// The package never touches links, addresses or routes, and knows no other room.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// nsfsMagic is the file system type of namespace files (NSFS_MAGIC, magic.h).
const nsfsMagic = 0x6e736673

// mountsAtOnePath bounds how many mounts stacked on one path Delete takes away.
const mountsAtOnePath = 16

// threadNamespace is the network namespace of the calling thread.
const threadNamespace = "/proc/thread-self/ns/net"

// Create makes a new, empty network namespace and binds it to path, making the
// directory where it is missing. A path that already names a namespace is
// fs.ErrExist; a plain file left there by a crash is used. After an error
// nothing new is left at path.
func Create(path string) error {
	if Exists(path) {
		return fmt.Errorf("create network namespace %s: %w", path, fs.ErrExist)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create network namespace %s: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o444)
	if err != nil {
		return fmt.Errorf("create network namespace %s: %w", path, err)
	}
	file.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount(threadNamespace, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind mount: %w", err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("create network namespace %s: %w", path, errors.Join(err, Delete(path)))
	}
	return nil
}

// Delete takes the name away; the kernel ends the namespace, some milliseconds
// later, once no process or socket is left in it. Deleting what does not exist
// is no error.
func Delete(path string) error {
	for range mountsAtOnePath {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount network namespace %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", path, err)
	}
	return nil
}

// Scratch calls f with the path of a new namespace, which is gone afterwards: to
// find out what the kernel can do without touching anything that is in use.
func Scratch(f func(path string) error) error {
	dir, err := os.MkdirTemp("", "shoal-scratch-")
	if err != nil {
		return fmt.Errorf("create a scratch network namespace: %w", err)
	}
	path := filepath.Join(dir, "ns")
	if err := Create(path); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return errors.Join(f(path), Delete(path), os.RemoveAll(dir))
}

// Exists reports whether path names a network namespace.
func Exists(path string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(path, &stat) == nil && int64(stat.Type) == nsfsMagic
}

// List returns the paths of the namespaces in dir, sorted. A missing dir has none.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var paths []string
	for _, entry := range entries {
		if path := filepath.Join(dir, entry.Name()); Exists(path) {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// Sweep deletes every namespace in dir that keep refuses, and every plain file
// that a crash left where a namespace was to be made. It returns what it
// deleted; after an error it has still tried all of them.
func Sweep(dir string, keep func(path string) bool) (removed []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sweep network namespaces: %w", err)
	}
	var failures []error
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if entry.IsDir() || (Exists(path) && keep(path)) {
			continue
		}
		if err := Delete(path); err != nil {
			failures = append(failures, err)
			continue
		}
		removed = append(removed, path)
	}
	slices.Sort(removed)
	return removed, errors.Join(failures...)
}

// Do runs f inside the namespace at path, on a thread that runs nothing else
// meanwhile. The empty path is the caller's own namespace: f runs as it is.
// Goroutines that f starts are not inside; sockets and file descriptors that f
// opens stay in the namespace afterwards. Calls may nest.
func Do(path string, f func() error) error {
	if path == "" {
		return f()
	}
	handle, err := Open(path)
	if err != nil {
		return err
	}
	defer handle.Close()
	return handle.Do(f)
}

// errGoexit says that the function given to Do ended its goroutine.
var errGoexit = errors.New("the function ended its goroutine (runtime.Goexit)")

// onThread runs f on a thread of its own, which f may leave in any network
// namespace: it is brought back afterwards or never used again.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		err := errGoexit
		defer func() { result <- err }()
		runtime.LockOSThread()
		own, openErr := unix.Open(threadNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if openErr != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("open the thread's own network namespace: %w", openErr)
			return
		}
		defer func() {
			if unix.Setns(own, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			unix.Close(own)
		}()
		err = f()
	}()
	return <-result
}
