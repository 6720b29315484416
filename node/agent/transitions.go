package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/runtime"
	"shoal/overlay/endpoint"
)

// Bounds of the transitions.
const (
	retryDelay     = 500 * time.Millisecond
	attachTimeout  = 30 * time.Second
	settleTimeout  = 2 * time.Second
	acceptPollMin  = 2 * time.Millisecond
	acceptPollMax  = 100 * time.Millisecond
	defaultGrace   = 10 * time.Second
	removalTimeout = time.Minute
)

// prepare makes everything a start needs: image, namespace, container.
func (w *worker) prepare(ctx context.Context, t *api.Task) {
	if api.Rank(w.status().State) < api.Rank(swarm.TaskStatePreparing) { // or it is made again after a restart
		w.advance(swarm.TaskStatePreparing, "preparing")
	}
	err := w.interruptible(ctx, func(ctx context.Context) error { return w.make(ctx, t) })
	switch {
	case ctx.Err() != nil || w.unwanted():
	case err != nil:
		w.fail(swarm.TaskStateRejected, err)
	default:
		w.made = true
		w.advance(swarm.TaskStateReady, "prepared")
	}
}

func (w *worker) make(ctx context.Context, t *api.Task) error {
	c := t.Spec.ContainerSpec
	if c == nil || c.Image == "" {
		return fmt.Errorf("task %s has no container specification", t.ID)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.publish(t, endpoint.Starting)
	attached := w.attach(ctx, t) // while the image is looked for
	image, err := w.a.cfg.Runtime.EnsureImage(ctx, c.Image, "")
	if err != nil {
		cancel()
		attached()
		return err
	}
	namespace, err := attached()
	if err != nil {
		return fmt.Errorf("network of task %s: %w", t.ID, err)
	}
	spec, err := w.container(t, image, namespace)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.local.Check, w.local.Exposed = newCheck(c.Healthcheck, image), exposedPorts(image)
	w.mu.Unlock()
	err = w.a.cfg.Runtime.Create(ctx, spec)
	if t.Standalone() {
		return w.madeStandalone(ctx, spec, err)
	}
	if errdefs.IsAlreadyExists(err) { // made by a run that was cut off before it could say so
		if err = w.a.cfg.Runtime.Remove(ctx, spec.ID); err == nil {
			err = w.a.cfg.Runtime.Create(ctx, spec)
		}
	}
	return err
}

// publish tells the other nodes of the task. From its preparation on they know where
// it is, so that its first question is answered.
func (w *worker) publish(t *api.Task, s endpoint.State) {
	v := w.endpoint(t)
	v.State = s
	w.a.cfg.Endpoints.Publish(w.id, v)
}

// attach begins to wire the task and returns how to wait for it.
func (w *worker) attach(ctx context.Context, t *api.Task) (attached func() (namespace string, err error)) {
	var namespace string
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(ctx, attachTimeout)
		defer cancel()
		namespace, err = w.a.cfg.Network.Attach(ctx, t)
	}()
	return func() (string, error) { <-done; return namespace, err }
}

// start starts the container and, once the task takes connections, its endpoint.
func (w *worker) start(ctx context.Context, t *api.Task) {
	w.advance(swarm.TaskStateStarting, "starting")
	pid, err := w.a.cfg.Runtime.Start(ctx, w.containerID())
	if err != nil {
		if ctx.Err() == nil {
			w.fail(swarm.TaskStateFailed, err)
		}
		return
	}
	w.mu.Lock()
	w.local.Status.ContainerStatus = &swarm.ContainerStatus{ContainerID: w.containerIDLocked(), PID: pid}
	w.local.Status.PortStatus = swarm.PortStatus{Ports: hostPorts(t)}
	w.mu.Unlock()
	w.persist()
}

// hostPorts are the ports that the task has on this host alone, as a user is told
// them.
func hostPorts(t *api.Task) (ports []swarm.PortConfig) {
	for _, p := range t.Ports {
		if p.PublishMode == swarm.PortConfigPublishModeHost {
			ports = append(ports, p)
		}
	}
	return ports
}

// watch serves a started task until it exits or is no longer wanted: it waits
// until the task is healthy, or accepts connections where nothing checks its
// health, publishes it, and notices its end.
func (w *worker) watch(ctx context.Context, t *api.Task) {
	if w.local.Unhealthy { // an earlier run was about to end it
		w.endUnhealthy(ctx, t)
		return
	}
	var helpers sync.WaitGroup
	defer helpers.Wait()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	exited, ready := make(chan exit, 1), make(chan struct{})
	helpers.Go(func() {
		st, err := w.a.cfg.Runtime.Wait(inner, w.containerID())
		exited <- exit{st, err}
	})
	health := w.awaitReady(inner, &helpers, t, ready)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-exited:
			w.ended(ctx, e)
			return
		case <-ready:
			ready = nil
			if !w.unwanted() {
				w.serve(ctx, t)
			}
		case s := <-health:
			switch {
			case w.unwanted():
			case s == container.Healthy:
				w.serve(ctx, t)
			case s == container.Unhealthy:
				cancel()
				w.endUnhealthy(ctx, t)
				return
			}
		case <-w.changed:
			if w.unwanted() {
				return
			}
		}
	}
}

// awaitReady closes ready when the task takes part, once it accepts connections;
// one that took part before this node's restart does at once. A task with a health
// check is examined instead, and takes part when health says so.
func (w *worker) awaitReady(ctx context.Context, helpers *sync.WaitGroup, t *api.Task, ready chan<- struct{}) (health <-chan container.HealthStatus) {
	check, running := w.local.Check, w.status().State == swarm.TaskStateRunning
	switch {
	case running:
		st, err := w.a.cfg.Runtime.Get(ctx, w.containerID())
		if err != nil || st.State == runtime.Running { // its end is told in another way
			close(ready)
		}
	case check == nil:
		helpers.Go(func() {
			if w.awaitAccept(ctx, t); ctx.Err() == nil {
				close(ready)
			}
		})
	}
	if check == nil {
		return nil
	}
	changes := make(chan container.HealthStatus)
	helpers.Go(func() { w.examine(ctx, check, w.healthNow(ctx, running), changes) })
	return changes
}

// healthNow is how a task is before it is asked: what took part was healthy.
func (w *worker) healthNow(ctx context.Context, running bool) health {
	h := health{started: w.a.cfg.Now()}
	if st, err := w.a.cfg.Runtime.Get(ctx, w.containerID()); err == nil && !st.StartedAt.IsZero() {
		h.started = st.StartedAt
	}
	if h.Status = container.Starting; running {
		h.Status = container.Healthy
	}
	return h
}

// endUnhealthy ends a task whose health check failed, as if it had failed by
// itself, and in the order that loses nobody's request.
func (w *worker) endUnhealthy(ctx context.Context, t *api.Task) {
	w.mu.Lock()
	w.local.Unhealthy = true
	w.mu.Unlock()
	w.persist() // a restart in the middle must not publish it again
	if w.status().State == swarm.TaskStateRunning {
		w.drain(ctx, t)
	}
	w.settled()
	if err := w.stop(ctx, t); err != nil {
		if ctx.Err() == nil {
			w.a.cfg.Logger.Error("an unhealthy task does not stop", "task", w.id, "error", err)
			pause(ctx, retryDelay)
		}
		return
	}
	code := 0
	if st, err := w.a.cfg.Runtime.Get(ctx, w.containerID()); err == nil {
		code = st.ExitCode
	}
	w.a.cfg.Endpoints.Withdraw(w.id)
	w.a.cfg.Network.SetLive(w.id, false)
	w.exitCode(code)
	w.fail(swarm.TaskStateFailed, unhealthyError(code))
}

// unhealthyError is in Docker's words; a process that ended well all the same has
// no code to tell.
func unhealthyError(code int) error {
	if code == 0 {
		return fmt.Errorf("task: unhealthy container")
	}
	return fmt.Errorf("task: non-zero exit (%d): unhealthy container", code)
}

type exit struct {
	status runtime.Status
	err    error
}

// serve puts the task into names and balancers. It counts as running once every
// node that lives has followed: another task may be stopped because of it.
func (w *worker) serve(ctx context.Context, t *api.Task) {
	w.a.cfg.Network.SetLive(w.id, true)
	w.publish(t, endpoint.Ready)
	w.settled()
	if w.status().State == swarm.TaskStateRunning {
		return
	}
	if missing := w.confirmed(ctx); len(missing) > 0 && ctx.Err() == nil {
		w.a.cfg.Logger.Warn("a task counts as running although not every node confirmed that it knows it",
			"task", w.id, "silent", missing)
	}
	w.advance(swarm.TaskStateRunning, "started")
}

// confirmed waits until every node that lives has applied what was published last,
// and names those that have not in time.
func (w *worker) confirmed(ctx context.Context) (missing []string) {
	ctx, cancel := context.WithTimeout(ctx, w.a.cfg.patience(settleTimeout))
	defer cancel()
	return w.a.cfg.Endpoints.Settle(ctx, w.id)
}

// ended records how a container that nobody stopped came to its end.
func (w *worker) ended(ctx context.Context, e exit) {
	if ctx.Err() != nil {
		return
	}
	w.a.cfg.Endpoints.Withdraw(w.id)
	w.a.cfg.Network.SetLive(w.id, false)
	w.settled()
	switch {
	case e.err != nil:
		w.fail(swarm.TaskStateFailed, e.err)
	case e.status.ExitCode != 0:
		w.exitCode(e.status.ExitCode)
		w.fail(swarm.TaskStateFailed, exitError(e.status))
	default:
		w.exitCode(0)
		w.advance(swarm.TaskStateComplete, "finished")
	}
}

func exitError(s runtime.Status) error {
	if s.OOMKilled {
		return fmt.Errorf("task: non-zero exit (%d): out of memory", s.ExitCode)
	}
	return fmt.Errorf("task: non-zero exit (%d)", s.ExitCode)
}

func (w *worker) exitCode(code int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := swarm.ContainerStatus{ContainerID: w.containerIDLocked()}
	if w.local.Status.ContainerStatus != nil {
		c = *w.local.Status.ContainerStatus
	}
	c.ExitCode, c.PID = code, 0
	w.local.Status.ContainerStatus = &c
}

// shutDown ends a task in the order that loses nobody's request: no new
// connection from any node first, then the stop signal, then the namespace.
func (w *worker) shutDown(ctx context.Context, t *api.Task) {
	if api.Rank(w.status().State) >= api.Rank(swarm.TaskStateStarting) {
		w.drain(ctx, t)
		if err := w.stop(ctx, t); err != nil {
			if ctx.Err() == nil {
				w.a.cfg.Logger.Error("a task does not stop", "task", w.id, "error", err)
				pause(ctx, retryDelay)
			}
			return
		}
		if st, err := w.a.cfg.Runtime.Get(ctx, w.containerID()); err == nil {
			w.exitCode(st.ExitCode)
		}
	}
	if ctx.Err() == nil {
		w.settled()
		w.a.cfg.Network.SetLive(w.id, false)
		w.advance(swarm.TaskStateShutdown, "shutdown")
	}
}

func grace(t *api.Task) time.Duration {
	if c := t.Spec.ContainerSpec; c != nil && c.StopGracePeriod != nil {
		return *c.StopGracePeriod
	}
	return defaultGrace
}

// resume picks up a task of an earlier run: one that runs is wired again and
// left alone, one that ended meanwhile is reported.
func (w *worker) resume(ctx context.Context) error {
	task, _ := w.current()
	state := w.status().State
	if state == "" || task == nil {
		return nil
	}
	if api.Terminal(state) {
		w.a.report(w.id)
		return nil
	}
	if api.Rank(state) < api.Rank(swarm.TaskStateStarting) {
		w.a.report(w.id)
		return nil // whatever was half made is made again
	}
	st, err := w.found(ctx)
	if err != nil {
		return fmt.Errorf("after a restart of the node: %w", err)
	}
	if st.State == runtime.Created {
		return fmt.Errorf("the node restarted before the task's process did")
	}
	if st.State == runtime.Running {
		if err := w.adopt(task); err != nil {
			return fmt.Errorf("network of task %s after a restart of the node: %w", w.id, err)
		}
		w.sighted()
		if _, err := w.a.cfg.Network.Attach(ctx, task); err != nil {
			return fmt.Errorf("network of task %s after a restart of the node: %w", w.id, err)
		}
	}
	w.a.report(w.id)
	return nil
}

// adopt makes a task that outlived the restart count before anything is compared
// with the kernel: what leads to it there is not to be taken away and made again.
func (w *worker) adopt(t *api.Task) error {
	if err := w.a.cfg.Network.Adopt(t); err != nil {
		return err
	}
	switch {
	case w.status().State != swarm.TaskStateRunning:
		w.publish(t, endpoint.Starting)
		return nil
	case !t.Wanted() || w.local.Unhealthy:
		w.publish(t, endpoint.Draining)
	default:
		w.publish(t, endpoint.Ready)
	}
	w.a.cfg.Network.SetLive(w.id, true)
	return nil
}

// found asks the runtime for the task's container until it has an answer: a
// runtime that is not up yet says nothing about the task.
func (w *worker) found(ctx context.Context) (runtime.Status, error) {
	for {
		st, err := w.a.cfg.Runtime.Get(ctx, w.containerID())
		if err == nil || errdefs.IsNotFound(err) || ctx.Err() != nil {
			return st, err
		}
		w.a.cfg.Logger.Warn("the runtime does not answer for a task of an earlier run", "task", w.id, "error", err)
		pause(ctx, retryDelay)
	}
}

// interruptible runs f with a context that also ends when the task is no longer wanted.
func (w *worker) interruptible(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	defer cancel()
	for {
		select {
		case err := <-done:
			return err
		case <-w.changed:
			if w.unwanted() {
				cancel()
				return <-done
			}
		}
	}
}

func (w *worker) unwanted() bool {
	task, _ := w.current()
	return task == nil || !task.Wanted()
}

func ignoreMissing(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// files writes what is mounted over the task's /etc.
func (w *worker) files(t *api.Task, hostname string) (resolv, hosts, name string, err error) {
	write := func(file, content string) string {
		path := filepath.Join(w.home(), file)
		if err == nil {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		return path
	}
	resolv = write("resolv.conf", w.a.cfg.ResolvConf(t))
	hosts = write("hosts", w.hostsFile(t, hostname))
	name = write("hostname", hostname+"\n")
	return resolv, hosts, name, err
}
