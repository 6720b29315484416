package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/cio"
	"github.com/containerd/containerd/errdefs"

	"shoal/node/runtime"
	"shoal/node/runtime/logfile"
)

// LogCommand is the sub-command of Config.LogBinary that the shims start, with
// the log's path as its one argument.
const LogCommand = "log-writer"

// LogWriterMain is the sub-command LogCommand: it writes one container's output
// to path until it ends, and exits the process.
func LogWriterMain(path string) { logfile.Main(path) }

// killedCode is the exit code of a container whose end nobody saw: the shell's
// code for SIGKILL.
const killedCode = 128 + int(syscall.SIGKILL)

// Start starts a created container. Starting a running one returns its pid.
func (r *Runtime) Start(ctx context.Context, id string) (int, error) {
	c, err := r.find(id)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch rec := r.read(c); rec.State {
	case runtime.Running:
		return rec.PID, nil
	case runtime.Exited:
		return 0, runtime.NotRunning(id)
	}
	ctx = r.scope(ctx)
	pid, err := r.launch(ctx, c)
	if err != nil {
		return 0, fmt.Errorf("start container %s: %w", id, err)
	}
	err = r.change(c, func(rec *record) {
		rec.State, rec.PID, rec.StartedAt = runtime.Running, pid, time.Now().UTC()
	})
	if err != nil {
		return 0, errors.Join(err, r.abandon(context.WithoutCancel(ctx), id))
	}
	r.watch(c)
	return pid, nil
}

// launch makes the task, which starts shim and log writer, and runs it.
func (r *Runtime) launch(ctx context.Context, c *container) (int, error) {
	request, err := r.taskRequest(ctx, c)
	if err != nil {
		return 0, err
	}
	service := r.client.TaskService()
	made, err := r.makeTask(ctx, c, request)
	if err != nil {
		return 0, err
	}
	if err := r.connectWaiting(c); err != nil {
		r.log.Warn("whoever waits for a container's output will not have it", "container", request.ContainerID, "error", err)
	}
	if _, err := service.Start(ctx, &tasks.StartRequest{ContainerID: request.ContainerID}); err != nil {
		undo := r.abandon(context.WithoutCancel(ctx), request.ContainerID)
		return 0, errors.Join(fmt.Errorf("failed to start task: %w", errdefs.FromGRPC(err)), undo)
	}
	return int(made.Pid), nil
}

// makeTask makes the task; when it returns there is somebody to read its output.
func (r *Runtime) makeTask(ctx context.Context, c *container, request *tasks.CreateTaskRequest) (made *tasks.CreateTaskResponse, err error) {
	var open outputs
	if request.Stdin != "" {
		if open, err = r.cfg.pipes(request.ContainerID).open(request.Terminal); err != nil {
			return nil, err
		}
		defer open.close() // the log writer has its own
	}
	made, err = r.client.TaskService().Create(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("failed to create task: %w", errdefs.FromGRPC(err))
	}
	if open == nil {
		return made, nil
	}
	if err := r.write(open, c.rec.Spec.LogPath); err != nil {
		return nil, errors.Join(err, r.abandon(context.WithoutCancel(ctx), request.ContainerID))
	}
	return made, nil
}

func (r *Runtime) taskRequest(ctx context.Context, c *container) (*tasks.CreateTaskRequest, error) {
	id := c.rec.Spec.ID
	request := &tasks.CreateTaskRequest{ContainerID: id, Terminal: c.rec.Spec.TTY}
	if err := r.streams(&c.rec.Spec, request); err != nil {
		return nil, err
	}
	if c.rootfs == nil {
		rootfs, err := r.client.SnapshotService(r.snapshotter).Mounts(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("find its file system: %w", err)
		}
		c.rootfs = rootfs
	}
	for _, m := range c.rootfs {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return request, nil
}

// streams says where the container's output goes and where its input comes from.
func (r *Runtime) streams(spec *runtime.Container, request *tasks.CreateTaskRequest) error {
	if spec.LogPath == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(spec.LogPath), 0o750); err != nil {
		return fmt.Errorf("make the log's directory: %w", err)
	}
	if spec.OpenStdin {
		return r.cfg.pipes(spec.ID).fill(request)
	}
	uri, err := cio.LogURIGenerator("binary", r.cfg.LogBinary, map[string]string{LogCommand: spec.LogPath})
	if err != nil {
		return fmt.Errorf("address of the log writer: %w", err)
	}
	request.Stdout, request.Stderr = uri.String(), uri.String()
	return nil
}

// abandon kills and deletes a task that no record tells of.
func (r *Runtime) abandon(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	service := r.client.TaskService()
	if err := r.signal(ctx, id, syscall.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	_, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	if err = errdefs.FromGRPC(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("wait for the end of task %s: %w", id, err)
	}
	return r.deleteTask(ctx, id)
}

// signal sends a signal to a task's first process. A task that has ended or
// is not there gives an error that is errdefs.ErrNotFound.
func (r *Runtime) signal(ctx context.Context, id string, s syscall.Signal) error {
	_, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(s)})
	if err != nil {
		return fmt.Errorf("send signal %d to container %s: %w", s, id, errdefs.FromGRPC(err))
	}
	return nil
}

// Kill sends a signal, by name or number, to a running container.
func (r *Runtime) Kill(ctx context.Context, id, name string) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	s, err := runtime.ParseSignal(name)
	if err != nil {
		return err
	}
	if r.read(c).State != runtime.Running {
		return runtime.NotRunning(id)
	}
	if err := r.signal(r.scope(ctx), id, s); err != nil {
		if errdefs.IsNotFound(err) {
			return runtime.NotRunning(id)
		}
		return err
	}
	return nil
}

// Stop sends the stop signal, waits for grace, then kills. It returns when the
// container has exited; what does not run is stopped already.
func (r *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	rec := r.read(c)
	if rec.State != runtime.Running {
		return nil
	}
	polite, err := runtime.ParseSignal(rec.StopSignal)
	if err != nil {
		return err
	}
	steps := []struct {
		signal   syscall.Signal
		patience time.Duration
	}{{polite, grace}, {syscall.SIGKILL, killPatience}}
	for _, step := range steps {
		if err := r.signal(r.scope(ctx), id, step.signal); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		ended, err := c.within(ctx, step.patience)
		if ended || err != nil {
			return err
		}
	}
	return fmt.Errorf("container %s did not end within %v of SIGKILL", id, killPatience)
}

// within waits for the container's end for at most patience.
func (c *container) within(ctx context.Context, patience time.Duration) (bool, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.done:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("stop container %s: %w", c.rec.Spec.ID, ctx.Err())
	}
}

// Wait returns when the container has exited, or is removed without having run.
func (r *Runtime) Wait(ctx context.Context, id string) (runtime.Status, error) {
	c, err := r.find(id)
	if err != nil {
		return runtime.Status{}, err
	}
	select {
	case <-c.done:
		rec := r.read(c)
		if rec.State != runtime.Exited {
			return rec.status(), runtime.NoSuchContainer(id)
		}
		return rec.status(), nil
	case <-ctx.Done():
		return runtime.Status{}, fmt.Errorf("wait for container %s: %w", id, ctx.Err())
	}
}
