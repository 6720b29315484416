package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/errdefs"
	"golang.org/x/sys/unix"

	"shoal/node/runtime"
	"shoal/node/runtime/logfile"
)

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// attached is a connection to the streams of one container.
type attached struct {
	r *Runtime
	c *container
	// started is closed when the connection is made; ended when there will be none.
	started, ended chan struct{}
	end            func()

	mu     sync.Mutex
	output *logfile.Listener
}

// Attach connects now to what runs, and at its start to what does not yet.
func (r *Runtime) Attach(_ context.Context, id string) (runtime.Attached, error) {
	c, err := r.find(id)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	rec := r.read(c)
	if rec.State == runtime.Exited {
		return nil, runtime.NotRunning(id)
	}
	if rec.Spec.LogPath == "" {
		return nil, runtime.Invalid("the output of container %s is not kept: nobody can attach to it", id)
	}
	a := &attached{r: r, c: c, started: make(chan struct{}), ended: make(chan struct{})}
	a.end = sync.OnceFunc(func() { close(a.ended) })
	if rec.State == runtime.Created {
		c.waiting = append(c.waiting, a)
		return a, nil
	}
	if err := a.connect(); err != nil {
		if r.read(c).State != runtime.Running { // it has ended meanwhile
			return nil, runtime.NotRunning(id)
		}
		return nil, err
	}
	return a, nil
}

// connect is called once the container's streams are there.
func (a *attached) connect() error {
	spec := &a.c.rec.Spec
	output, err := logfile.Listen(spec.LogPath)
	if err != nil {
		return fmt.Errorf("attach to container %s: %w", spec.ID, err)
	}
	if err := a.r.openStdin(a.c); err != nil {
		return errors.Join(fmt.Errorf("attach to container %s: %w", spec.ID, err), output.Close())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.ended: // it did not wait
		return output.Close()
	default:
	}
	a.output = output
	close(a.started)
	return nil
}

// openStdin opens the writing end of the container's input, which all that are
// attached share, unless it is open.
func (r *Runtime) openStdin(c *container) error {
	if !c.rec.Spec.OpenStdin || r.stdin(c) != nil {
		return nil
	}
	path := r.cfg.pipes(c.rec.Spec.ID).path("stdin")
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENXIO) { // nobody reads it any more
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	r.mu.Lock()
	c.stdin = os.NewFile(uintptr(fd), path)
	r.mu.Unlock()
	return nil
}

func (r *Runtime) stdin(c *container) *os.File {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.stdin
}

// closeStdin closes what openStdin opened.
func (r *Runtime) closeStdin(c *container) error {
	r.mu.Lock()
	stdin := c.stdin
	c.stdin = nil
	r.mu.Unlock()
	if stdin == nil {
		return nil
	}
	return stdin.Close()
}

// connectWaiting connects those that came before the start.
func (r *Runtime) connectWaiting(c *container) error {
	waiting := c.waiting
	c.waiting = nil
	var errs []error
	for _, a := range waiting {
		if err := a.connect(); err != nil {
			errs = append(errs, err)
			a.end()
		}
	}
	return errors.Join(errs...)
}

// ready waits for the container's start; false when there will be none.
func (a *attached) ready() bool {
	select {
	case <-a.started:
		return true
	default:
	}
	select {
	case <-a.started:
		return true
	case <-a.ended:
	case <-a.c.done:
	}
	return false
}

// Next waits for output.
func (a *attached) Next() (runtime.OutputStream, []byte, error) {
	if !a.ready() {
		return 0, nil, io.EOF
	}
	stream, p, err := a.output.Next()
	if stream == logfile.Stderr {
		return runtime.Stderr, p, err
	}
	return runtime.Stdout, p, err
}

// Write gives the container input.
func (a *attached) Write(p []byte) (int, error) {
	if !a.ready() {
		return 0, io.ErrClosedPipe
	}
	stdin := a.r.stdin(a.c)
	if stdin == nil {
		return 0, runtime.Invalid("container %s has no open standard input", a.c.rec.Spec.ID)
	}
	return stdin.Write(p)
}

// CloseStdin has the shim close its own end too, without which the container would
// never read the end.
func (a *attached) CloseStdin(ctx context.Context) error {
	if !a.ready() || a.r.stdin(a.c) == nil {
		return nil
	}
	id := a.c.rec.Spec.ID
	_, err := a.r.client.TaskService().CloseIO(a.r.scope(ctx), &tasks.CloseIORequest{ContainerID: id, Stdin: true})
	if err = errdefs.FromGRPC(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("close the input of container %s: %w", id, err)
	}
	if err := a.r.closeStdin(a.c); err != nil {
		return fmt.Errorf("close the input of container %s: %w", id, err)
	}
	return nil
}

// Close ends the connection.
func (a *attached) Close() error {
	a.end()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.output == nil {
		return nil
	}
	if err := a.output.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("detach from container %s: %w", a.c.rec.Spec.ID, err)
	}
	return nil
}

// Resize sets the size of the terminal.
func (r *Runtime) Resize(ctx context.Context, id string, width, height uint32) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	if r.read(c).State != runtime.Running {
		return runtime.NotRunning(id)
	}
	_, err = r.client.TaskService().ResizePty(r.scope(ctx), &tasks.ResizePtyRequest{ContainerID: id, Width: width, Height: height})
	if err = errdefs.FromGRPC(err); errdefs.IsNotFound(err) {
		return runtime.NotRunning(id)
	} else if err != nil {
		return fmt.Errorf("resize the terminal of container %s: %w", id, err)
	}
	return nil
}
