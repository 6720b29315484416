package fake

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"sync"

	"shoal/node/runtime"
	"shoal/node/runtime/logfile"
)

// attached is a connection to a container's streams. mu of the runtime guards the
// output.
type attached struct {
	f      *Runtime
	c      *container
	output []frame
	news   chan struct{} // holds one token after every change
	closed chan struct{}
	close  func()
}

type frame struct {
	stream runtime.OutputStream
	text   string
}

// Attach connects to a container that has not ended.
func (f *Runtime) Attach(_ context.Context, id string) (runtime.Attached, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil {
		return nil, err
	}
	if c.status.State == runtime.Exited {
		return nil, runtime.NotRunning(id)
	}
	a := &attached{f: f, c: c, news: make(chan struct{}, 1), closed: make(chan struct{})}
	a.close = sync.OnceFunc(func() { close(a.closed) })
	c.attached[a] = struct{}{}
	return a, nil
}

// tell is called with mu held.
func (c *container) tell(stream runtime.OutputStream, lines []string) {
	for _, line := range lines {
		c.hand(frame{stream, line + "\n"})
	}
}

func (c *container) hand(piece frame) {
	for a := range c.attached {
		a.output = append(a.output, piece)
		select {
		case a.news <- struct{}{}:
		default:
		}
	}
}

// Next waits for output.
func (a *attached) Next() (runtime.OutputStream, []byte, error) {
	for {
		ended := false
		select {
		case <-a.c.done:
			ended = true
		case <-a.closed:
			return 0, nil, io.EOF
		default:
		}
		a.f.mu.Lock()
		if len(a.output) > 0 {
			next := a.output[0]
			a.output = a.output[1:]
			a.f.mu.Unlock()
			return next.stream, []byte(next.text), nil
		}
		a.f.mu.Unlock()
		if ended {
			return 0, nil, io.EOF
		}
		select {
		case <-a.news:
		case <-a.c.done:
		case <-a.closed:
		}
	}
}

// Write gives input to a container that runs.
func (a *attached) Write(p []byte) (int, error) {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	switch {
	case !a.c.spec.OpenStdin:
		return 0, runtime.Invalid("container %s has no open standard input", a.c.spec.ID)
	case a.c.status.State != runtime.Running:
		return 0, io.ErrClosedPipe
	case a.c.process.Echoes:
		a.c.hand(frame{runtime.Stdout, string(p)})
		if err := a.c.log(string(p), a.f.cfg); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// log adds to the container's log.
func (c *container) log(text string, cfg Config) error {
	if c.spec.LogPath == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.spec.LogPath), 0o750); err != nil {
		return err
	}
	w, err := logfile.Open(c.spec.LogPath, logfile.MaxSize, logfile.MaxFiles)
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Write(logfile.Entry{Log: text, Stream: "stdout", Time: cfg.Now().UTC()})
}

// CloseStdin ends the input, and with it what echoes it.
func (a *attached) CloseStdin(context.Context) error {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	if a.c.spec.OpenStdin && a.c.process.Echoes && a.c.status.State == runtime.Running {
		a.f.end(a.c, 0)
	}
	return nil
}

// Close ends the connection.
func (a *attached) Close() error {
	a.f.mu.Lock()
	delete(a.c.attached, a)
	a.f.mu.Unlock()
	a.close()
	return nil
}

// Resize takes the size of a running container's terminal.
func (f *Runtime) Resize(_ context.Context, id string, _, _ uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil {
		return err
	}
	if c.status.State != runtime.Running {
		return runtime.NotRunning(id)
	}
	return nil
}

// Renew makes a created container of one that has ended.
func (f *Runtime) Renew(ctx context.Context, spec runtime.Container) error {
	if err := runtime.Validate(spec); err != nil {
		return err
	}
	f.mu.Lock()
	old, err := f.find(spec.ID)
	if err == nil && old.status.State == runtime.Running {
		err = runtime.Runs(spec.ID)
	}
	if err == nil {
		delete(f.containers, spec.ID)
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if err := f.Create(ctx, spec); err != nil {
		f.mu.Lock()
		f.containers[spec.ID] = old
		f.mu.Unlock()
		return err
	}
	return nil
}
