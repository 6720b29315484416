package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/snapshots"

	"shoal/node/runtime"
)

// left is what an earlier process left in containerd.
type left struct {
	tasks      map[string]*task.Process
	containers map[string]bool
	snapshots  map[string]bool
}

// adopt joins the records with what containerd has: known containers go on,
// half-made ones and strangers are taken away.
func (r *Runtime) adopt(ctx context.Context) error {
	records, damaged, err := r.cfg.records()
	if err != nil {
		return err
	}
	for _, err := range damaged {
		r.log.Error("container is lost", "error", err)
	}
	found, err := r.leftovers(ctx)
	if err != nil {
		return err
	}
	for id, rec := range records {
		if !found.containers[id] || !found.snapshots[id] {
			delete(records, id)
			found.containers[id] = true
			continue
		}
		if err := r.readopt(ctx, newContainer(*rec), found.tasks[id]); err != nil {
			return err
		}
	}
	return r.sweep(ctx, records, found)
}

func (r *Runtime) leftovers(ctx context.Context) (*left, error) {
	found := &left{map[string]*task.Process{}, map[string]bool{}, map[string]bool{}}
	running, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the tasks: %w", errdefs.FromGRPC(err))
	}
	for _, t := range running.Tasks {
		found.tasks[t.ID] = t
	}
	known, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the containers: %w", err)
	}
	for _, c := range known {
		found.containers[c.ID] = true
	}
	err = r.client.SnapshotService(r.snapshotter).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindActive {
			found.snapshots[info.Name] = true
		}
		return nil
	}, `labels."containerd.io/gc.root"`)
	if err != nil {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	return found, nil
}

// sweep removes everything that has no record.
func (r *Runtime) sweep(ctx context.Context, records map[string]*record, found *left) error {
	var errs []error
	for id := range found.tasks {
		if records[id] == nil {
			errs = append(errs, r.abandon(ctx, id))
		}
	}
	for _, names := range []map[string]bool{found.containers, found.snapshots} {
		for id := range names {
			if records[id] == nil {
				errs = append(errs, r.unmake(ctx, id))
			}
		}
	}
	return errors.Join(errs...)
}

// readopt brings one record and its task, nil when there is none, together.
func (r *Runtime) readopt(ctx context.Context, c *container, t *task.Process) error {
	id := c.rec.Spec.ID
	r.containers[id] = c
	switch {
	case c.rec.State == runtime.Exited:
		c.finish()
		if t != nil {
			return r.deleteTask(ctx, id)
		}
	case t != nil && t.Status == task.Status_CREATED:
		// The daemon died between making and starting the task.
		return r.abandon(ctx, id)
	case t != nil:
		return r.resume(c, t)
	case c.rec.State == runtime.Running:
		defer c.finish()
		return r.change(c, func(rec *record) {
			rec.State, rec.PID, rec.ExitCode, rec.FinishedAt = runtime.Exited, 0, killedCode, time.Now().UTC()
		})
	}
	return nil
}

// resume follows a task that an earlier process started, whether or not it came
// to write that down.
func (r *Runtime) resume(c *container, t *task.Process) error {
	err := r.change(c, func(rec *record) {
		if rec.State == runtime.Created {
			rec.State, rec.StartedAt = runtime.Running, time.Now().UTC()
		}
		rec.PID = int(t.Pid)
	})
	if err != nil {
		return err
	}
	r.watch(c)
	return nil
}
