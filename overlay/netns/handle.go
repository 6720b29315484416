package netns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ID tells namespaces apart while they live: the device and inode of the
// namespace file. The kernel may use an inode again once a namespace is gone.
type ID struct {
	Device, Inode uint64
}

// Handle is an open namespace; it keeps the namespace alive until it is closed.
// Its methods may be used from several goroutines, but not after Close.
type Handle struct {
	path string
	file *os.File
	id   ID
}

// Open opens the namespace at path; the empty path is the process's own. A
// path that is no namespace is an error.
func Open(path string) (*Handle, error) {
	if path == "" {
		var own *Handle
		err := onThread(func() (err error) { own, err = open(threadNamespace); return err })
		return own, err
	}
	return open(path)
}

func open(path string) (*Handle, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	var fs unix.Statfs_t
	var stat unix.Stat_t
	err = errors.Join(unix.Fstatfs(int(file.Fd()), &fs), unix.Fstat(int(file.Fd()), &stat))
	if err == nil && int64(fs.Type) != nsfsMagic {
		err = errors.New("not a namespace")
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return &Handle{path: path, file: file, id: ID{stat.Dev, stat.Ino}}, nil
}

// Identify returns the id of the namespace that path names now, and false where
// it names none.
func Identify(path string) (ID, bool) {
	var stat unix.Stat_t
	if !Exists(path) || unix.Stat(path, &stat) != nil {
		return ID{}, false
	}
	return ID{stat.Dev, stat.Ino}, true
}

// Fd is the namespace's file descriptor, valid until Close.
func (h *Handle) Fd() int { return int(h.file.Fd()) }

// Path names the namespace for other programs of the machine, until Close: the
// descriptor of this process, as proc(5) shows it. Unlike the namespace of a process
// it does not move with a thread.
func (h *Handle) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.Fd()) }

// ID tells which namespace this is.
func (h *Handle) ID() ID { return h.id }

// Close lets the namespace go.
func (h *Handle) Close() error { return h.file.Close() }

// Do runs f inside the namespace, as the function Do does.
func (h *Handle) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(h.Fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", h.path, err)
		}
		return f()
	})
}
