package engineapi

import (
	"context"
	"io"
	"net/http"
	"sync"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/node/runtime"
)

// attachContainer joins a client to a container's streams, one that has not been
// started yet included: such a client hears everything from the first byte on.
func (a *API) attachContainer(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	c, err := a.find(r.Context(), vars["id"])
	if err != nil {
		return err
	}
	switch {
	case wire.Bool(r, "logs"):
		return api.Errorf(api.Invalid, "attach gives what comes from now on: docker logs gives what was before")
	case !wire.Bool(r, "stream"):
		return api.Errorf(api.Invalid, "attach without stream=1 has nothing to give: docker logs gives what was before")
	}
	record, _ := a.record(c.ID)
	tty := record.Wish.Spec.TTY
	streams, err := a.attach(r.Context(), c.ID)
	if err != nil {
		return kinded(err)
	}
	conn, err := wire.Hijack(w, r, tty)
	if err != nil {
		return streams.Close()
	}
	s := &session{
		streams: streams, conn: conn, frames: wire.NewFrames(conn), tty: tty, once: record.Wish.StdinOnce,
		stdin: wire.Bool(r, "stdin"), stdout: wire.Bool(r, "stdout"), stderr: wire.Bool(r, "stderr"),
	}
	s.run()
	return nil
}

// attach connects to the runtime's container, which one that is started for the
// first time or anew does not have yet.
func (a *API) attach(ctx context.Context, id string) (runtime.Attached, error) {
	if _, ours := a.record(id); ours {
		return a.cfg.Standalone.Attach(ctx, id)
	}
	return a.cfg.Runtime.Attach(ctx, id)
}

// session is one client at one container's streams.
type session struct {
	streams               runtime.Attached
	conn                  *wire.Conn
	frames                *wire.Frames
	tty, once             bool
	stdin, stdout, stderr bool
}

// run ends with the container's output, or with the client.
func (s *session) run() {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.conn.Close()
	defer s.streams.Close()
	wg.Go(func() {
		s.input()
	})
	s.output()
}

// output hands on what the container writes.
func (s *session) output() {
	for {
		stream, p, err := s.streams.Next()
		if err != nil {
			return
		}
		if err := s.give(stream, p); err != nil {
			return // the client has gone
		}
	}
}

func (s *session) give(stream runtime.OutputStream, p []byte) error {
	switch {
	case stream == runtime.Stdout && !s.stdout, stream == runtime.Stderr && !s.stderr:
		return nil
	case s.tty:
		_, err := s.conn.Write(p)
		return err
	case stream == runtime.Stderr:
		return s.frames.Write(wire.Stderr, p)
	}
	return s.frames.Write(wire.Stdout, p)
}

// input hands on what the client sends. Its end is the end of the container's
// input where the container was made for one client. A client that goes altogether
// is not waited for.
func (s *session) input() {
	var into io.Writer = io.Discard
	if s.stdin {
		into = s.streams
	}
	_, err := io.Copy(into, s.conn)
	if s.stdin && s.once && !s.tty {
		_ = s.streams.CloseStdin(context.Background()) // of one that has ended there is none
	}
	if err != nil || !s.stdout && !s.stderr {
		_ = s.streams.Close() // ends output too
	}
}
