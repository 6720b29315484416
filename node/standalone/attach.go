package standalone

import (
	"context"
	"io"
	"sync"

	"shoal/node/runtime"
)

// Attach connects to the streams of a container: of one that runs from now on, of
// another from the first byte of its next start on.
func (s *Store) Attach(ctx context.Context, id string) (runtime.Attached, error) {
	e, err := s.find(id)
	if err != nil {
		return nil, err
	}
	if st, err := s.cfg.Runtime.Get(ctx, id); err == nil && st.State == runtime.Running {
		return s.cfg.Runtime.Attach(ctx, id)
	}
	a := &early{made: make(chan struct{}), closed: make(chan struct{})}
	a.close = sync.OnceFunc(func() { close(a.closed) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.removed {
		return nil, runtime.NoSuchContainer(id)
	}
	e.early = append(e.early, a)
	return a, nil
}

// Made implements agent.Standalone: whoever came before the container was made is
// connected before it starts.
func (s *Store) Made(ctx context.Context, id string) {
	e, err := s.find(id)
	if err != nil {
		return
	}
	s.mu.Lock()
	waiting := e.early
	e.early = nil
	s.mu.Unlock()
	for _, a := range waiting {
		inner, err := s.cfg.Runtime.Attach(ctx, id)
		if err != nil {
			s.cfg.Logger.Warn("whoever waits for a container's output will not have it", "container", id, "error", err)
		}
		a.join(inner)
	}
}

// letGo ends the waiting of those that came early; mu is held.
func (e *entry) letGo() {
	for _, a := range e.early {
		a.close()
	}
	e.early = nil
}

// early is a connection to a container that is not made yet.
type early struct {
	made, closed chan struct{}
	close        func()

	mu    sync.Mutex
	inner runtime.Attached // set before made is closed
}

func (a *early) join(inner runtime.Attached) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.closed: // it did not wait
		if inner != nil {
			_ = inner.Close()
		}
		return
	default:
	}
	if inner == nil {
		a.close()
		return
	}
	a.inner = inner
	close(a.made)
}

// wait returns the connection once there is one, nil when there will be none.
func (a *early) wait() runtime.Attached {
	select {
	case <-a.made:
		return a.inner
	case <-a.closed:
		return nil
	}
}

// Next implements runtime.Attached.
func (a *early) Next() (runtime.OutputStream, []byte, error) {
	if inner := a.wait(); inner != nil {
		return inner.Next()
	}
	return 0, nil, io.EOF
}

// Write implements runtime.Attached.
func (a *early) Write(p []byte) (int, error) {
	if inner := a.wait(); inner != nil {
		return inner.Write(p)
	}
	return 0, io.ErrClosedPipe
}

// CloseStdin implements runtime.Attached.
func (a *early) CloseStdin(ctx context.Context) error {
	if inner := a.wait(); inner != nil {
		return inner.CloseStdin(ctx)
	}
	return nil
}

// Close implements runtime.Attached.
func (a *early) Close() error {
	a.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inner != nil {
		return a.inner.Close()
	}
	return nil
}
