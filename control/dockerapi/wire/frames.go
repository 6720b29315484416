package wire

import (
	"encoding/binary"
	"io"
	"net/http"
	"sync"
)

// Content types of attach, exec and log streams.
const (
	RawStream         = "application/vnd.docker.raw-stream"
	MultiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// multiplexedSince is the first version whose clients are told by the content
// type that a stream is framed; older ones know it from the container.
var multiplexedSince = Version{1, 42}

// StreamType returns the content type of a stream: framed unless the process
// has a terminal.
func StreamType(v Version, tty bool) string {
	if tty || v.Less(multiplexedSince) {
		return RawStream
	}
	return MultiplexedStream
}

// Stream says which of a process's streams a frame belongs to.
type Stream byte

// The streams of the frame format. SystemErr carries an error of the server's
// own, after which the client fails.
const (
	Stdin Stream = iota
	Stdout
	Stderr
	SystemErr
)

// frameHead is the size of a frame's head: stream, three zero bytes, length in
// big endian.
const frameHead = 8

// maxFrame bounds one frame; longer writes become several.
const maxFrame = 1 << 20

// Frames writes several streams to one connection. It is safe for use from many
// goroutines; a frame goes out with one Write and, when w is a
// http.ResponseWriter, is flushed at once.
type Frames struct {
	mu    sync.Mutex
	w     io.Writer
	flush func() error
	buf   []byte
}

// NewFrames returns a writer of frames to w.
func NewFrames(w io.Writer) *Frames {
	f := &Frames{w: w, flush: func() error { return nil }}
	if rw, ok := w.(http.ResponseWriter); ok {
		f.flush = http.NewResponseController(rw).Flush
	}
	return f
}

// Write writes p as part of a stream.
func (f *Frames) Write(s Stream, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		n := min(len(p), maxFrame)
		f.buf = append(f.buf[:0], byte(s), 0, 0, 0, 0, 0, 0, 0)
		binary.BigEndian.PutUint32(f.buf[4:frameHead], uint32(n))
		f.buf = append(f.buf, p[:n]...)
		if _, err := f.w.Write(f.buf); err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return f.flush()
		}
	}
}

// To returns a writer whose bytes go out as frames of one stream.
func (f *Frames) To(s Stream) io.Writer { return frameStream{f, s} }

type frameStream struct {
	frames *Frames
	stream Stream
}

func (s frameStream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.frames.Write(s.stream, p); err != nil {
		return 0, err
	}
	return len(p), nil
}
