package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/cio"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/protobuf"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"shoal/node/runtime"
)

// outputPatience is how long the rest of a program's output is waited for once it
// has ended: a child that it left behind may keep the streams open for ever.
const outputPatience = time.Second

// Exec runs a program inside a running container.
func (r *Runtime) Exec(ctx context.Context, id string, args []string) (runtime.ExecResult, error) {
	if len(args) == 0 || args[0] == "" {
		return runtime.ExecResult{}, runtime.Invalid("no program to run in container %s", id)
	}
	c, err := r.find(id)
	if err != nil {
		return runtime.ExecResult{}, err
	}
	if r.read(c).State != runtime.Running {
		return runtime.ExecResult{}, runtime.NotRunning(id)
	}
	ctx = r.scope(ctx)
	process, err := r.process(ctx, c)
	if err != nil {
		return runtime.ExecResult{}, fmt.Errorf("run %s in container %s: %w", args[0], id, err)
	}
	process.Args, process.Terminal = args, false
	out, err := r.exec(ctx, id, process)
	if errdefs.IsNotFound(err) && r.read(c).State != runtime.Running {
		return out, runtime.NotRunning(id)
	}
	if err != nil {
		return out, fmt.Errorf("run %s in container %s: %w", args[0], id, err)
	}
	return out, nil
}

// process returns the specification of the container's first process.
func (r *Runtime) process(ctx context.Context, c *container) (specs.Process, error) {
	r.mu.Lock()
	known := c.process
	r.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	found, err := r.client.ContainerService().Get(ctx, c.rec.Spec.ID)
	if err != nil {
		return specs.Process{}, fmt.Errorf("find its specification: %w", err)
	}
	decoded, err := typeurl.UnmarshalAny(found.Spec)
	if err != nil {
		return specs.Process{}, fmt.Errorf("decode its specification: %w", err)
	}
	spec, ok := decoded.(*specs.Spec)
	if !ok || spec.Process == nil {
		return specs.Process{}, fmt.Errorf("its specification (%T) has no process", decoded)
	}
	r.mu.Lock()
	c.process = spec.Process
	r.mu.Unlock()
	return *spec.Process, nil
}

// exec makes the process, follows it to its end and lets containerd forget it.
func (r *Runtime) exec(ctx context.Context, id string, process specs.Process) (out runtime.ExecResult, err error) {
	execID := rand.Text()
	spec, err := typeurl.MarshalAny(&process)
	if err != nil {
		return out, fmt.Errorf("encode the process: %w", err)
	}
	kept := &beginning{}
	streams, err := cio.NewCreator(cio.WithStreams(nil, kept, kept), cio.WithFIFODir(r.cfg.execDir()))(execID)
	if err != nil {
		return out, fmt.Errorf("make its streams: %w", err)
	}
	defer func() { err = errors.Join(err, streams.Close()) }()
	_, err = r.client.TaskService().Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: id, ExecID: execID, Stdout: streams.Config().Stdout, Stderr: streams.Config().Stderr, Spec: protobuf.FromAny(spec),
	})
	if err != nil {
		streams.Cancel()
		return out, errdefs.FromGRPC(err)
	}
	out.ExitCode, err = r.follow(ctx, id, execID)
	drain(streams, err)
	err = errors.Join(err, r.forgetProcess(ctx, id, execID))
	out.Output = kept.String()
	return out, err
}

// follow starts the process and waits for its end; when ctx ends first, the
// process is killed.
func (r *Runtime) follow(ctx context.Context, id, execID string) (code int, err error) {
	service := r.client.TaskService()
	if _, err := service.Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: execID}); err != nil {
		return 0, errdefs.FromGRPC(err)
	}
	ended, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: id, ExecID: execID})
	if err == nil {
		return int(ended.ExitStatus), nil
	}
	if ctx.Err() == nil {
		return 0, errdefs.FromGRPC(err)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
	defer cancel()
	_, err = service.Kill(last, &tasks.KillRequest{ContainerID: id, ExecID: execID, Signal: uint32(syscall.SIGKILL)})
	if err == nil {
		_, err = service.Wait(last, &tasks.WaitRequest{ContainerID: id, ExecID: execID})
	}
	if err = errdefs.FromGRPC(err); err != nil && !errdefs.IsNotFound(err) {
		return 0, errors.Join(ctx.Err(), fmt.Errorf("kill it: %w", err))
	}
	return 0, ctx.Err()
}

// drain waits for what an ended process has written; one that did not end well
// has nothing more to say.
func drain(streams cio.IO, failed error) {
	if failed == nil {
		read := make(chan struct{})
		go func() {
			streams.Wait()
			close(read)
		}()
		timer := time.NewTimer(outputPatience)
		defer timer.Stop()
		select {
		case <-read:
			return
		case <-timer.C:
		}
	}
	streams.Cancel()
}

// forgetProcess deletes an ended process; with its container it is gone anyway.
func (r *Runtime) forgetProcess(ctx context.Context, id, execID string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
	defer cancel()
	_, err := r.client.TaskService().DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: id, ExecID: execID})
	if err = errdefs.FromGRPC(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("forget an ended process: %w", err)
	}
	return nil
}

// execDir holds the streams of programs while they run.
func (c *Config) execDir() string { return filepath.Join(c.StateDir, "streams") }

// sweepExec takes away the streams of programs that an earlier process ran.
func (c *Config) sweepExec() error {
	if err := os.RemoveAll(c.execDir()); err != nil {
		return fmt.Errorf("sweep the streams of an earlier run: %w", err)
	}
	return nil
}

// beginning keeps the first ExecOutputMax bytes that are written to it.
type beginning struct {
	mu   sync.Mutex
	text []byte
}

// Write never fails: what is too much is dropped, so that nobody blocks on it.
func (b *beginning) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p[:min(len(p), runtime.ExecOutputMax-len(b.text))]...)
	return len(p), nil
}

// String is what was kept.
func (b *beginning) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}
