package containerd

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/errdefs"

	"shoal/node/runtime"
)

// retryPause is how long a watcher waits before it asks a containerd again that
// did not answer.
const retryPause = 500 * time.Millisecond

// watch follows a running task to its end in the background.
func (r *Runtime) watch(c *container) {
	gone := make(chan struct{})
	r.mu.Lock()
	c.gone = gone
	r.mu.Unlock()
	r.watchers.Go(func() {
		code, at, ended := r.awaitEnd(c.rec.Spec.ID)
		if ended {
			r.ended(c, code, at)
			close(gone)
		}
	})
}

// awaitEnd blocks until the task has ended; false means that the runtime closes
// first. A task that containerd does not know any more was killed with its shim.
func (r *Runtime) awaitEnd(id string) (code int, at time.Time, ended bool) {
	complained := false
	for {
		answer, err := r.client.TaskService().Wait(r.ctx, &tasks.WaitRequest{ContainerID: id})
		err = errdefs.FromGRPC(err)
		switch {
		case err == nil:
			return int(answer.ExitStatus), answer.ExitedAt.AsTime(), true
		case r.ctx.Err() != nil:
			return 0, time.Time{}, false
		case errdefs.IsNotFound(err):
			return killedCode, time.Now().UTC(), true
		case !complained:
			r.log.Warn("cannot follow a container, will try again", "container", id, "error", err)
			complained = true
		}
		select {
		case <-r.ctx.Done():
			return 0, time.Time{}, false
		case <-time.After(retryPause):
		}
	}
}

// ended records the exit and lets containerd forget the task. When the record
// cannot be written the task is kept, so that the exit is still to be had there.
func (r *Runtime) ended(c *container, code int, at time.Time) {
	oom := outOfMemory(r.cfg.cgroupPath(c.rec.Spec.ID))
	r.mu.Lock()
	c.rec.State, c.rec.PID = runtime.Exited, 0
	c.rec.ExitCode, c.rec.FinishedAt, c.rec.OOMKilled = code, at, oom
	rec := c.rec
	r.mu.Unlock()
	err := errors.Join(r.cfg.save(&rec), r.closeStdin(c))
	c.finish()
	if err == nil {
		err = r.deleteTask(r.ctx, rec.Spec.ID)
	}
	if err != nil && r.ctx.Err() == nil {
		r.log.Error("cannot put away an ended container", "container", rec.Spec.ID, "error", err)
	}
}

// cgroupPath is a container's place in the cgroup hierarchies.
func (c *Config) cgroupPath(id string) string {
	return filepath.Join(c.CgroupParent, c.Namespace, id)
}

// outOfMemory asks the kernel's own count, which is there until the task is
// deleted: memory.events in cgroup v2, memory.oom_control in v1. A container
// without a memory controller was not killed by it.
func outOfMemory(cgroup string) bool {
	for _, path := range []string{
		filepath.Join("/sys/fs/cgroup", cgroup, "memory.events"),
		filepath.Join("/sys/fs/cgroup/memory", cgroup, "memory.oom_control"),
	} {
		if raw, err := os.ReadFile(path); err == nil {
			return oomKills(raw) > 0
		}
	}
	return false
}

func oomKills(raw []byte) int {
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		key, value, _ := bytes.Cut(lines.Bytes(), []byte(" "))
		if string(key) != "oom_kill" {
			continue
		}
		if n, err := strconv.Atoi(string(value)); err == nil {
			return n
		}
	}
	return 0
}
