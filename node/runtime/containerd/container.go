package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/mount"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"

	"shoal/node/runtime"
	"shoal/node/runtime/logfile"
)

// killPatience is how long Stop and Remove wait for a killed container's end.
const killPatience = 10 * time.Second

// container is one container in memory. mu orders the operations on it; rec is
// read and written under the runtime's own mu too, which is held only briefly.
type container struct {
	mu     sync.Mutex
	rec    record
	rootfs []mount.Mount
	// stdin is the writing end of open input while somebody is or was attached; mu
	// of the runtime guards it.
	stdin *os.File
	// waiting are attached and wait for the start; mu guards it.
	waiting []*attached
	// done is closed when the container has exited or is removed.
	done chan struct{}
	once sync.Once
	// gone is closed when containerd has forgotten the task too. It is nil
	// while no watcher runs; mu of the runtime guards it.
	gone chan struct{}
	// process is the first process's specification, once somebody has asked for
	// it; mu of the runtime guards it.
	process *specs.Process
}

func newContainer(rec record) *container { return &container{rec: rec, done: make(chan struct{})} }

func (c *container) finish() { c.once.Do(func() { close(c.done) }) }

func (r *Runtime) find(id string) (*container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.containers[id]; ok {
		return c, nil
	}
	return nil, runtime.NoSuchContainer(id)
}

// change edits the record, on disk first.
func (r *Runtime) change(c *container, edit func(*record)) error {
	r.mu.Lock()
	next := c.rec
	r.mu.Unlock()
	edit(&next)
	if err := r.cfg.save(&next); err != nil {
		return err
	}
	r.mu.Lock()
	c.rec = next
	r.mu.Unlock()
	return nil
}

func (r *Runtime) read(c *container) record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.rec
}

// Create makes the snapshot, the specification and the record. A failure takes
// back what was made.
func (r *Runtime) Create(ctx context.Context, spec runtime.Container) error {
	if err := runtime.Validate(spec); err != nil {
		return err
	}
	ctx = r.scope(ctx)
	image, err := r.localImage(ctx, spec.Image)
	if err != nil {
		return err
	}
	c := newContainer(record{
		Spec: spec, ImageName: image.name, StopSignal: stopSignal(spec, image),
		State: runtime.Created, CreatedAt: time.Now().UTC(),
	})
	if _, err := runtime.ParseSignal(c.rec.StopSignal); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := r.register(c); err != nil {
		return err
	}
	if err := r.build(ctx, c, image); err != nil {
		undo := r.unmake(context.WithoutCancel(ctx), spec.ID)
		r.unregister(c)
		return errors.Join(fmt.Errorf("create container %s: %w", spec.ID, err), undo)
	}
	return nil
}

func (r *Runtime) register(c *container) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := c.rec.Spec.ID
	if _, taken := r.containers[id]; taken {
		return runtime.Exists(id)
	}
	r.containers[id] = c
	return nil
}

func (r *Runtime) unregister(c *container) {
	r.mu.Lock()
	delete(r.containers, c.rec.Spec.ID)
	r.mu.Unlock()
	c.finish()
}

// build does the work of Create. The record comes first: what has one but no
// container is half made, and the next start of the daemon takes it away.
func (r *Runtime) build(ctx context.Context, c *container, image *image) error {
	id := c.rec.Spec.ID
	if err := r.cfg.save(&c.rec); err != nil {
		return err
	}
	// The label keeps containerd's garbage collector off the snapshot until the
	// container below refers to it, and costs no round trip as a lease would.
	label := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": c.rec.CreatedAt.Format(time.RFC3339)})
	rootfs, err := r.prepare(ctx, id, image, label)
	if err != nil {
		return err
	}
	c.rootfs = rootfs
	spec, err := r.spec(ctx, &c.rec.Spec, image, rootfs)
	if err != nil {
		return err
	}
	raw, err := typeurl.MarshalAny(spec)
	if err != nil {
		return fmt.Errorf("encode its specification: %w", err)
	}
	_, err = r.client.ContainerService().Create(ctx, containers.Container{
		ID: id, Image: image.name, Spec: raw, Snapshotter: r.snapshotter, SnapshotKey: id,
		Labels:  map[string]string{"shoal.name": c.rec.Spec.Name},
		Runtime: containers.RuntimeInfo{Name: runtimeName},
	})
	if err != nil {
		return fmt.Errorf("tell containerd: %w", err)
	}
	return nil
}

// prepare makes the container's file system, unpacking the image first when
// this snapshotter has not seen it.
func (r *Runtime) prepare(ctx context.Context, id string, image *image, opts ...snapshots.Opt) ([]mount.Mount, error) {
	snapshotter := r.client.SnapshotService(r.snapshotter)
	rootfs, err := snapshotter.Prepare(ctx, id, image.chainID, opts...)
	if errdefs.IsNotFound(err) {
		if err := r.unpack(ctx, image.name); err != nil {
			return nil, err
		}
		rootfs, err = snapshotter.Prepare(ctx, id, image.chainID, opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare its file system: %w", err)
	}
	return rootfs, nil
}

// unmake removes what Create made, in the opposite order; missing parts are fine.
func (r *Runtime) unmake(ctx context.Context, id string) error {
	var errs []error
	if err := r.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, fmt.Errorf("delete container %s: %w", id, err))
	}
	err := r.client.SnapshotService(r.snapshotter).Remove(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		errs = append(errs, fmt.Errorf("delete the file system of container %s: %w", id, err))
	}
	if len(errs) == 0 {
		errs = append(errs, r.cfg.pipes(id).remove(), r.cfg.forget(id))
	}
	return errors.Join(errs...)
}

// Remove kills what runs and deletes container, file system, log and record.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	c, err := r.find(id)
	if err != nil {
		return nil //nolint:nilerr // what is not there is removed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx = r.scope(ctx)
	if err := r.endTask(ctx, c); err != nil {
		return err
	}
	if err := r.unmake(ctx, id); err != nil {
		return err
	}
	r.unregister(c)
	if path := c.rec.Spec.LogPath; path != "" {
		return logfile.Remove(path)
	}
	return nil
}

// endTask kills what runs and returns when containerd has forgotten the task.
func (r *Runtime) endTask(ctx context.Context, c *container) error {
	r.mu.Lock()
	gone, running := c.gone, c.rec.State == runtime.Running
	r.mu.Unlock()
	id := c.rec.Spec.ID
	if gone == nil {
		return r.deleteTask(ctx, id)
	}
	if running {
		if err := r.signal(ctx, id, syscall.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	patience := time.NewTimer(killPatience)
	defer patience.Stop()
	select {
	case <-gone:
		return r.deleteTask(ctx, id)
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of container %s: %w", id, ctx.Err())
	case <-patience.C:
		return fmt.Errorf("container %s did not end within %v of SIGKILL", id, killPatience)
	}
}

// deleteTask makes containerd forget a task, running or not.
func (r *Runtime) deleteTask(ctx context.Context, id string) error {
	_, err := r.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errdefs.FromGRPC(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete the task of container %s: %w", id, err)
	}
	return nil
}

// List returns every container, in no order.
func (r *Runtime) List(context.Context) ([]runtime.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]runtime.Status, 0, len(r.containers))
	for _, c := range r.containers {
		all = append(all, c.rec.status())
	}
	return all, nil
}

// Get returns one container.
func (r *Runtime) Get(_ context.Context, id string) (runtime.Status, error) {
	c, err := r.find(id)
	if err != nil {
		return runtime.Status{}, err
	}
	rec := r.read(c)
	return rec.status(), nil
}
