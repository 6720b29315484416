package containerd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
)

// The shim of containerd 1.6 gives a process whose output goes to a log writer of
// the shim's own no standard input. So what has open input gets named pipes for
// all its streams, and this package starts its log writer, as the shim would.

// pipes are the named pipes of one container.
type pipes struct{ dir string }

func (c *Config) pipes(id string) pipes {
	return pipes{filepath.Join(c.StateDir, "stdio", id)}
}

func (p pipes) path(name string) string { return filepath.Join(p.dir, name) }

// fill makes the pipes and enters them into the request.
func (p pipes) fill(request *tasks.CreateTaskRequest) error {
	if err := errors.Join(p.remove(), os.MkdirAll(p.dir, 0o700)); err != nil {
		return fmt.Errorf("directory of its streams: %w", err)
	}
	for name, field := range map[string]*string{"stdin": &request.Stdin, "stdout": &request.Stdout, "stderr": &request.Stderr} {
		if name == "stderr" && request.Terminal {
			continue
		}
		*field = p.path(name)
		if err := unix.Mkfifo(*field, 0o600); err != nil {
			return fmt.Errorf("make its %s: %w", name, err)
		}
	}
	return nil
}

func (p pipes) remove() error { return os.RemoveAll(p.dir) }

// outputs are the reading ends of a container's output, for its log writer.
type outputs []*os.File

// open opens the output's ends before the shim does, which would wait for it.
func (p pipes) open(terminal bool) (outputs, error) {
	names := []string{p.path("stdout"), p.path("stderr")}
	if terminal {
		names[1] = os.DevNull
	}
	var open outputs
	for _, name := range names {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.SetNonblock(fd, false)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), open.close())
		}
		open = append(open, os.NewFile(uintptr(fd), name))
	}
	return open, nil
}

func (o outputs) close() error {
	var errs []error
	for _, f := range o {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// write starts the log writer, which has the output as the third and fourth file
// and says on the fifth that it is ready. It goes on without this process.
func (r *Runtime) write(o outputs, logPath string) error {
	ready, tell, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe to the log writer: %w", err)
	}
	defer ready.Close()
	cmd := exec.Command(r.cfg.LogBinary, LogCommand, logPath)
	cmd.ExtraFiles = append(append(cmd.ExtraFiles, o...), tell)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	if err := errors.Join(err, tell.Close()); err != nil {
		return fmt.Errorf("start the log writer: %w", err)
	}
	go func() { _ = cmd.Wait() }() // it ends with the container, maybe after this process
	if _, err := ready.Read(make([]byte, 1)); err != nil && !isEOF(err) {
		return fmt.Errorf("wait for the log writer: %w", err)
	}
	return nil
}
