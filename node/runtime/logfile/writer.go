// Package logfile writes the output of a container to files: one JSON object a
// line with log, stream and time, as Docker's json-file has them, rotated at a
// bound. It never decides where the files are and never drops a reader's data
// while the disk takes it.
package logfile

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// Bounds of a container's log: files of at most MaxSize bytes, MaxFiles of them,
// the newest under the bare path, older ones with .1, .2 behind it.
const (
	MaxSize  = 10 << 20
	MaxFiles = 3
)

// Entry is one line of a log file.
type Entry struct {
	// Log is the text with its line end; a piece of an over-long line has none.
	Log string `json:"log"`
	// Stream is stdout or stderr.
	Stream string `json:"stream"`
	// Time is when the text was read, UTC with nanoseconds.
	Time time.Time `json:"time"`
}

// Writer appends entries to a log file. It is safe for concurrent use.
type Writer struct {
	path     string
	maxSize  int64
	maxFiles int

	mu   sync.Mutex
	file *os.File
	size int64
}

// Open opens the log at path for appending, creating it with mode 0640.
func Open(path string, maxSize int64, maxFiles int) (*Writer, error) {
	w := &Writer{path: path, maxSize: maxSize, maxFiles: maxFiles}
	return w, w.open()
}

func (w *Writer) open() error {
	file, err := os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return fmt.Errorf("size of the log: %w", err)
	}
	w.file, w.size = file, info.Size()
	return nil
}

// Write appends one entry, rotating first when it would not fit.
func (w *Writer) Write(e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode a line for %s: %w", w.path, err)
	}
	line = append(line, '\n')
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size > 0 && w.size+int64(len(line)) > w.maxSize {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	n, err := w.file.Write(line)
	w.size += int64(n)
	if err != nil {
		return fmt.Errorf("write the log: %w", err)
	}
	return nil
}

// rotate moves every file one place up and starts an empty one.
func (w *Writer) rotate() error {
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("close the log to rotate it: %w", err)
	}
	for i := w.maxFiles - 1; i > 0; i-- {
		err := os.Rename(older(w.path, i-1), older(w.path, i))
		if err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("rotate the log: %w", err)
		}
	}
	if w.maxFiles == 1 {
		if err := os.Truncate(w.path, 0); err != nil {
			return fmt.Errorf("empty the log: %w", err)
		}
	}
	return w.open()
}

// Close closes the current file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.file.Close()
}

// Paths lists the files a log at path can have, the newest first.
func Paths(path string, maxFiles int) []string {
	paths := make([]string, 0, maxFiles)
	for i := range maxFiles {
		paths = append(paths, older(path, i))
	}
	return paths
}

// Remove deletes every file of the log at path; missing ones are fine.
func Remove(path string) error {
	for _, p := range Paths(path, MaxFiles) {
		if err := os.Remove(p); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("remove the log: %w", err)
		}
	}
	return nil
}

func older(path string, n int) string {
	if n == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, n)
}
