package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/runtime/v2/logging"
)

const (
	// maxText bounds the text of one entry, bytes, as Docker bounds it.
	maxText = 16 << 10
	// drainTime is how long the writer goes on reading after it was told to end.
	drainTime = 5 * time.Second
)

// Main is the whole life of a container's log writer, started by the
// container's shim with the pipes of the container's output. It ends when both
// pipes do and exits the process. It outlives the daemon: nothing that happens
// to the daemon can block the container's output. Who is attached to the container
// hears the output from here, see Tap.
func Main(path string) {
	logging.Run(func(ctx context.Context, config *logging.Config, ready func() error) error {
		w, err := Open(path, MaxSize, MaxFiles)
		if err != nil {
			// A container whose log cannot be kept still runs: its output is
			// read, so that it neither blocks nor dies of a broken pipe.
			return errors.Join(err, ready(), drain(config))
		}
		tap, err := OpenTap(path) // or nobody can attach, which is no reason not to run
		if err := ready(); err != nil {
			return fmt.Errorf("tell the shim that the log is ready: %w", err)
		}
		return errors.Join(err, copyBoth(ctx, w, tap, config), tap.Close())
	})
}

func copyBoth(ctx context.Context, w *Writer, tap *Tap, config *logging.Config) error {
	done := make(chan error, 2)
	go func() { done <- Copy(w, tap, Stdout, config.Stdout, time.Now) }()
	go func() { done <- Copy(w, tap, Stderr, config.Stderr, time.Now) }()
	var (
		errs []error
		told = ctx.Done()
		late <-chan time.Time
	)
	for len(errs) < 2 {
		select {
		case err := <-done:
			errs = append(errs, err)
		case <-told:
			// The shim closes its ends of the pipes before it says to end, so
			// what is left to read is bounded.
			told, late = nil, time.After(drainTime)
		case <-late:
			return errors.Join(append(errs, fmt.Errorf("output goes on %v after the end", drainTime), w.Close())...)
		}
	}
	return errors.Join(append(errs, w.Close())...)
}

// names are what the log calls the streams.
var names = map[byte]string{Stdout: "stdout", Stderr: "stderr"}

// Copy gives what r gives to the tap at once and to w, a line an entry, until r
// ends. An error of w does not stop the reading; the first one is returned at the
// end.
func Copy(w *Writer, tap *Tap, stream byte, r io.Reader, now func() time.Time) error {
	lines := &lines{w: w, stream: names[stream], now: now}
	piece := make([]byte, maxFrame)
	for {
		n, err := r.Read(piece)
		if n > 0 {
			tap.Send(stream, piece[:n])
			lines.add(piece[:n])
		}
		if err == nil {
			continue
		}
		lines.flush()
		if errors.Is(err, io.EOF) {
			return lines.failed
		}
		return errors.Join(lines.failed, fmt.Errorf("read %s: %w", names[stream], err))
	}
}

// lines cuts output into the entries of a log.
type lines struct {
	w      *Writer
	stream string
	now    func() time.Time
	held   []byte // the beginning of a line
	failed error  // the first
}

func (l *lines) add(p []byte) {
	for len(p) > 0 {
		n := min(len(p), maxText-len(l.held))
		if end := bytes.IndexByte(p[:n], '\n'); end >= 0 {
			n = end + 1
		}
		l.held = append(l.held, p[:n]...)
		p = p[n:]
		if len(l.held) == maxText || l.held[len(l.held)-1] == '\n' {
			l.flush()
		}
	}
}

func (l *lines) flush() {
	if len(l.held) == 0 {
		return
	}
	err := l.w.Write(Entry{Log: string(l.held), Stream: l.stream, Time: l.now().UTC()})
	if err != nil && l.failed == nil {
		l.failed = err
	}
	l.held = l.held[:0]
}

func drain(config *logging.Config) error {
	var both sync.WaitGroup
	errs := make([]error, 2)
	for i, r := range []io.Reader{config.Stdout, config.Stderr} {
		both.Go(func() { _, errs[i] = io.Copy(io.Discard, r) })
	}
	both.Wait()
	return errors.Join(errs...)
}
