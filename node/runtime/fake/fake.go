// Package fake is a runtime in memory for tests and for the simulation. It
// refuses what the real one refuses and passes the same suite; it starts no
// process. What a container does is programmed.
package fake

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"syscall"
	"time"

	"shoal/node/runtime"
	"shoal/node/runtime/logfile"
)

// Process is what a container does once it is started.
type Process struct {
	// StartError, when not nil, is why it cannot be started.
	StartError error
	// Output is what it writes to standard output, an entry a line.
	Output []string
	// Exits ends it by itself at once, with the code Exit.
	Exits bool
	Exit  int
	// Errors is what it writes to standard error, after Output.
	Errors []string
	// Echoes writes its input to standard output and ends well when that ends.
	Echoes bool
	// Exec is what a program does that is run beside it, nil for nothing, well.
	Exec func(args []string) Executed
	// Ignores lists signals that do nothing to it. SIGKILL always works.
	Ignores []syscall.Signal
}

// Executed is what a program did that Exec ran.
type Executed struct {
	// Error, when not nil, is why it cannot be started.
	Error  error
	Output string
	Exit   int
	// Hangs: it never ends by itself.
	Hangs bool
}

// Config is what New needs; the zero value is usable.
type Config struct {
	// Images are present from the start, Registry's can be pulled.
	Images, Registry []string
	// Run programs containers; nil lets each run until a signal.
	Run func(runtime.Container) Process
	// Now is the clock, time.Now when nil.
	Now func() time.Time
}

// Runtime is runtime.Runtime in memory. It is safe for concurrent use.
type Runtime struct {
	cfg Config

	mu         sync.Mutex
	images     map[string]runtime.Image
	containers map[string]*container
	lastPID    int
}

var _ runtime.Runtime = (*Runtime)(nil)

type container struct {
	spec    runtime.Container
	image   string
	process Process
	status  runtime.Status
	done    chan struct{}
	// attached hear what it writes.
	attached map[*attached]struct{}
}

// New makes a runtime with the configured images and no containers.
func New(cfg Config) *Runtime {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Run == nil {
		cfg.Run = func(runtime.Container) Process { return Process{} }
	}
	f := &Runtime{cfg: cfg, images: map[string]runtime.Image{}, containers: map[string]*container{}, lastPID: 1000}
	for _, ref := range cfg.Images {
		f.AddImage(ref)
	}
	return f
}

// Version names the fake.
func (f *Runtime) Version(context.Context) (string, error) { return "fake 1", nil }

func (f *Runtime) find(id string) (*container, error) {
	if c, ok := f.containers[id]; ok {
		return c, nil
	}
	return nil, runtime.NoSuchContainer(id)
}

// Create remembers a container of an image that is present.
func (f *Runtime) Create(_ context.Context, spec runtime.Container) error {
	if err := runtime.Validate(spec); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	image, err := f.image(spec.Image)
	if err != nil {
		return err
	}
	if _, taken := f.containers[spec.ID]; taken {
		return runtime.Exists(spec.ID)
	}
	if len(spec.Entrypoint)+len(spec.Args)+len(image.Entrypoint)+len(image.Cmd) == 0 {
		return runtime.Invalid("no command specified")
	}
	if spec.StopSignal == "" {
		spec.StopSignal = image.StopSignal
	}
	if spec.StopSignal == "" {
		spec.StopSignal = "SIGTERM"
	}
	f.containers[spec.ID] = &container{
		spec: spec, image: image.ID, done: make(chan struct{}), attached: map[*attached]struct{}{},
		status: runtime.Status{
			ID: spec.ID, Name: spec.Name, Image: spec.Image, Labels: maps.Clone(spec.Labels),
			State: runtime.Created, CreatedAt: f.cfg.Now(), LogPath: spec.LogPath,
		},
	}
	return nil
}

// Start runs the program that Config.Run gives for the container.
func (f *Runtime) Start(_ context.Context, id string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil {
		return 0, err
	}
	switch c.status.State {
	case runtime.Running:
		return c.status.PID, nil
	case runtime.Exited:
		return 0, runtime.NotRunning(id)
	}
	c.process = f.cfg.Run(c.spec)
	if c.process.StartError != nil {
		return 0, fmt.Errorf("start container %s: %w", id, c.process.StartError)
	}
	if err := c.write(f.cfg.Now()); err != nil {
		return 0, fmt.Errorf("start container %s: %w", id, err)
	}
	f.lastPID++
	pid := f.lastPID
	c.status.State, c.status.PID, c.status.StartedAt = runtime.Running, pid, f.cfg.Now()
	c.tell(runtime.Stdout, c.process.Output)
	c.tell(runtime.Stderr, c.process.Errors)
	if c.process.Exits {
		f.end(c, c.process.Exit)
	}
	return pid, nil
}

// end is called with mu held on a running container.
func (f *Runtime) end(c *container, code int) {
	c.status.State, c.status.PID = runtime.Exited, 0
	c.status.ExitCode, c.status.FinishedAt = code, f.cfg.Now()
	close(c.done)
}

// Stop sends the stop signal; what ignores it is killed after the grace.
func (f *Runtime) Stop(ctx context.Context, id string, grace time.Duration) error {
	f.mu.Lock()
	c, err := f.find(id)
	if err != nil || c.status.State != runtime.Running {
		f.mu.Unlock()
		return err
	}
	polite, err := runtime.ParseSignal(c.spec.StopSignal)
	if err == nil {
		f.signal(c, polite)
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop container %s: %w", id, ctx.Err())
	case <-timer.C:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signal(c, syscall.SIGKILL)
	return nil
}

// signal is called with mu held. What does not run takes no signal.
func (f *Runtime) signal(c *container, s syscall.Signal) {
	if c.status.State != runtime.Running {
		return
	}
	for _, ignored := range c.process.Ignores {
		if s == ignored && s != syscall.SIGKILL {
			return
		}
	}
	f.end(c, 128+int(s))
}

// Kill sends a signal to a running container.
func (f *Runtime) Kill(_ context.Context, id, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil {
		return err
	}
	s, err := runtime.ParseSignal(name)
	if err != nil {
		return err
	}
	if c.status.State != runtime.Running {
		return runtime.NotRunning(id)
	}
	f.signal(c, s)
	return nil
}

// Remove forgets a container and its log.
func (f *Runtime) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return nil
	}
	f.signal(c, syscall.SIGKILL)
	delete(f.containers, id)
	if c.status.State == runtime.Created {
		close(c.done)
	}
	if c.spec.LogPath != "" {
		return logfile.Remove(c.spec.LogPath)
	}
	return nil
}

// List returns every container, in no order.
func (f *Runtime) List(context.Context) ([]runtime.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]runtime.Status, 0, len(f.containers))
	for _, c := range f.containers {
		all = append(all, c.status)
	}
	return all, nil
}

// Get returns one container.
func (f *Runtime) Get(_ context.Context, id string) (runtime.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil {
		return runtime.Status{}, err
	}
	return c.status, nil
}

// Exec runs what the container's program says of the arguments.
func (f *Runtime) Exec(ctx context.Context, id string, args []string) (runtime.ExecResult, error) {
	if len(args) == 0 || args[0] == "" {
		return runtime.ExecResult{}, runtime.Invalid("no program to run in container %s", id)
	}
	f.mu.Lock()
	c, err := f.find(id)
	if err == nil && c.status.State != runtime.Running {
		err = runtime.NotRunning(id)
	}
	f.mu.Unlock()
	if err != nil {
		return runtime.ExecResult{}, err
	}
	var did Executed
	if c.process.Exec != nil {
		did = c.process.Exec(args)
	}
	switch {
	case did.Error != nil:
		return runtime.ExecResult{}, fmt.Errorf("run %s in container %s: %w", args[0], id, did.Error)
	case did.Hangs:
		select {
		case <-ctx.Done():
			return runtime.ExecResult{}, fmt.Errorf("run %s in container %s: %w", args[0], id, ctx.Err())
		case <-c.done:
			return runtime.ExecResult{ExitCode: 128 + int(syscall.SIGKILL)}, nil
		}
	}
	return runtime.ExecResult{ExitCode: did.Exit, Output: did.Output[:min(len(did.Output), runtime.ExecOutputMax)]}, nil
}

// Wait returns when the container has exited, or is removed without having run.
func (f *Runtime) Wait(ctx context.Context, id string) (runtime.Status, error) {
	f.mu.Lock()
	c, err := f.find(id)
	f.mu.Unlock()
	if err != nil {
		return runtime.Status{}, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return runtime.Status{}, fmt.Errorf("wait for container %s: %w", id, ctx.Err())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.status.State != runtime.Exited {
		return c.status, runtime.NoSuchContainer(id)
	}
	return c.status, nil
}
