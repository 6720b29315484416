package logfile

import (
	"bufio"
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
// to the daemon can block the container's output.
func Main(path string) {
	logging.Run(func(ctx context.Context, config *logging.Config, ready func() error) error {
		w, err := Open(path, MaxSize, MaxFiles)
		if err != nil {
			// A container whose log cannot be kept still runs: its output is
			// read, so that it neither blocks nor dies of a broken pipe.
			return errors.Join(err, ready(), drain(config))
		}
		if err := ready(); err != nil {
			return fmt.Errorf("tell the shim that the log is ready: %w", err)
		}
		return copyBoth(ctx, w, config)
	})
}

func copyBoth(ctx context.Context, w *Writer, config *logging.Config) error {
	done := make(chan error, 2)
	go func() { done <- Copy(w, "stdout", config.Stdout, time.Now) }()
	go func() { done <- Copy(w, "stderr", config.Stderr, time.Now) }()
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

// Copy writes what r gives to w, a line an entry, until r ends. An error of w
// does not stop the reading; the first one is returned at the end.
func Copy(w *Writer, stream string, r io.Reader, now func() time.Time) error {
	lines := bufio.NewReaderSize(r, maxText)
	var failed error
	for {
		text, err := lines.ReadSlice('\n')
		if len(text) > 0 {
			if e := w.Write(Entry{Log: string(text), Stream: stream, Time: now().UTC()}); e != nil && failed == nil {
				failed = e
			}
		}
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return failed
		default:
			return errors.Join(failed, fmt.Errorf("read %s: %w", stream, err))
		}
	}
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
