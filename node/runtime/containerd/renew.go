package containerd

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/containers"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"shoal/node/runtime"
)

// Renew gives an ended container a new specification and the state created. Its
// snapshot stays.
func (r *Runtime) Renew(ctx context.Context, spec runtime.Container) error {
	if err := runtime.Validate(spec); err != nil {
		return err
	}
	old, err := r.find(spec.ID)
	if err != nil {
		return err
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	rec := r.read(old)
	if rec.State == runtime.Running {
		return runtime.Runs(spec.ID)
	}
	ctx = r.scope(ctx)
	if err := r.endTask(ctx, old); err != nil {
		return err
	}
	image, err := r.localImage(ctx, spec.Image)
	if err != nil {
		return err
	}
	rec.Spec, rec.StopSignal, rec.State = spec, stopSignal(spec, image), runtime.Created
	if _, err := runtime.ParseSignal(rec.StopSignal); err != nil {
		return err
	}
	next := newContainer(rec)
	if err := r.respecify(ctx, next, image); err != nil {
		return fmt.Errorf("renew container %s: %w", spec.ID, err)
	}
	if err := r.cfg.save(&next.rec); err != nil {
		return err
	}
	next.waiting = old.waiting
	for _, a := range next.waiting {
		a.c = next
	}
	r.mu.Lock()
	r.containers[spec.ID] = next
	r.mu.Unlock()
	return nil
}

// respecify tells containerd what the container is to be.
func (r *Runtime) respecify(ctx context.Context, c *container, image *image) error {
	id := c.rec.Spec.ID
	rootfs, err := r.client.SnapshotService(r.snapshotter).Mounts(ctx, id)
	if err != nil {
		return fmt.Errorf("find its file system: %w", err)
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
	_, err = r.client.ContainerService().Update(ctx, containers.Container{ID: id, Spec: raw}, "spec")
	if err = errdefs.FromGRPC(err); err != nil {
		return fmt.Errorf("tell containerd: %w", err)
	}
	return nil
}
