package agent

import (
	"context"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/runtime"
)

// Standalone knows the containers of this node that are no service's: the managers
// know of them only which networks they are on. Its methods may be called from any
// worker.
type Standalone interface {
	// Wish is what the task's container is to run; false when the container is not
	// to run as that task.
	Wish(t *api.Task) (spec *swarm.ContainerSpec, limits *swarm.ResourceRequirements, ok bool)
	// Owns says whether the container is that task's now: it may be another's, or be
	// gone.
	Owns(containerID, taskID string) bool
	// Keeps says whether the container is to be there when its task is not.
	Keeps(containerID string) bool
	// Made tells that the container is there, and is about to start.
	Made(ctx context.Context, containerID string)
	// Moved tells of every new status of such a task.
	Moved(taskID string, status swarm.TaskStatus)
}

// StandaloneDir is where the files of containers that are no service's are, below
// the agent's own directory: a directory for each.
func StandaloneDir(dir string) string { return filepath.Join(dir, "standalone") }

// dress gives the task of such a container what it is to run, as if the managers
// had told it. It takes part once it runs: whoever started it is watching. What the
// node does not know has no specification, and is refused as soon as it is looked at.
func (a *Agent) dress(t *api.Task) *api.Task {
	if !t.Standalone() {
		return t
	}
	dressed := *t
	dressed.Spec.ContainerSpec = &swarm.ContainerSpec{}
	if a.cfg.Standalone != nil {
		if spec, limits, ok := a.cfg.Standalone.Wish(t); ok {
			own := *spec
			own.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}}
			dressed.Spec.ContainerSpec, dressed.Spec.Resources = &own, limits
		}
	}
	dressed.ServiceLabels = map[string]string{api.LabelReady: "started"}
	return &dressed
}

// standaloneContainer is the id of the container that the task stands for, "" for
// a service's task.
func standaloneContainer(t *api.Task) string {
	if t == nil || !t.Standalone() || t.Spec.NetworkAttachmentSpec == nil {
		return ""
	}
	return t.Spec.NetworkAttachmentSpec.ContainerID
}

// containerID is that of the task's container.
func (w *worker) containerID() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.containerIDLocked()
}

// containerIDLocked is called with mu held.
func (w *worker) containerIDLocked() string {
	if w.local.Container != "" {
		return w.local.Container
	}
	return ContainerID(w.id)
}

// isStandalone says whether the task's container is no service's.
func (w *worker) isStandalone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.local.Container != "" && w.a.cfg.Standalone != nil
}

// home is where the files of the container are: those of one that stays longer
// than its task are not the task's.
func (w *worker) home() string {
	if w.isStandalone() {
		return filepath.Join(StandaloneDir(w.a.cfg.Dir), w.containerID())
	}
	return w.dir()
}

// stop stops the task's container; one that runs as another task by now is none.
func (w *worker) stop(ctx context.Context, t *api.Task) error {
	if w.isStandalone() && !w.a.cfg.Standalone.Owns(w.containerID(), w.id) {
		return nil
	}
	return ignoreMissing(w.a.cfg.Runtime.Stop(ctx, w.containerID(), grace(t)))
}

// removeContainer removes the container of a task that is no longer assigned. One
// that is no service's only stops, and stays for whoever started it.
func (w *worker) removeContainer(ctx context.Context) error {
	if !w.isStandalone() {
		return ignoreMissing(w.a.cfg.Runtime.Remove(ctx, w.containerID()))
	}
	_, seen := w.current()
	if seen == nil {
		seen = &api.Task{}
	}
	id := w.containerID()
	if w.a.cfg.Standalone.Keeps(id) {
		return w.stop(ctx, seen)
	}
	return ignoreMissing(w.a.cfg.Runtime.Remove(ctx, id))
}

// madeStandalone ends the making of a container that may have run before, err is
// what creating it gave.
func (w *worker) madeStandalone(ctx context.Context, spec runtime.Container, err error) error {
	if errdefs.IsAlreadyExists(err) {
		err = w.a.cfg.Runtime.Renew(ctx, spec)
	}
	if err == nil {
		w.a.cfg.Standalone.Made(ctx, spec.ID)
	}
	return err
}
