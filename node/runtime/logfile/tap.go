package logfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// The streams of a frame. Hello is sent once, when a listener is sure to get all
// that comes.
const (
	Hello byte = iota
	Stdout
	Stderr
)

// frameHead is a frame's head: the stream, and the length in big endian.
const frameHead = 5

// maxFrame bounds what a frame carries, bytes.
const maxFrame = 32 << 10

// SocketPath is where the output of the container with that log can be listened to.
func SocketPath(path string) string { return path + ".sock" }

// Tap hands a container's output on as it comes to whoever listens. A listener
// that does not read holds the container up as a pipe would; one that has gone does
// not.
type Tap struct {
	listener net.Listener
	path     string

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	buf    []byte
}

// OpenTap listens at SocketPath of the log.
func OpenTap(path string) (*Tap, error) {
	at := SocketPath(path)
	if err := os.Remove(at); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("socket of an earlier writer: %w", err)
	}
	t := &Tap{path: at, conns: map[net.Conn]struct{}{}}
	err := within(at, func(short string) (err error) {
		t.listener, err = net.Listen("unix", short)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", at, err)
	}
	t.listener.(*net.UnixListener).SetUnlinkOnClose(false) // by a name that is gone
	go t.accept()
	return t, nil
}

// within gives a name for a socket that is short enough, however long the path is.
func within(path string, use func(short string) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

func (t *Tap) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			return // closed
		}
		t.mu.Lock()
		if t.closed || t.write(conn, Hello, nil) != nil {
			conn.Close()
		} else {
			t.conns[conn] = struct{}{}
		}
		t.mu.Unlock()
	}
}

// Send hands output on; on a nil Tap it does nothing.
func (t *Tap) Send(stream byte, p []byte) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for conn := range t.conns {
		if err := t.write(conn, stream, p); err != nil {
			delete(t.conns, conn)
			conn.Close()
		}
	}
}

// write is called with mu held.
func (t *Tap) write(conn net.Conn, stream byte, p []byte) error {
	t.buf = append(t.buf[:0], stream, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(t.buf[1:frameHead], uint32(len(p)))
	t.buf = append(t.buf, p...)
	_, err := conn.Write(t.buf)
	return err
}

// Close tells every listener that there will be no more output.
func (t *Tap) Close() error {
	if t == nil {
		return nil
	}
	errs := []error{t.listener.Close()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for conn := range t.conns {
		errs = append(errs, conn.Close())
	}
	if err := os.Remove(t.path); err != nil && !os.IsNotExist(err) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Listener hears a container's output from the moment at which it was made.
type Listener struct{ conn net.Conn }

// Listen connects to the writer of the log at path. Every byte that the container
// writes after it has returned can be read.
func Listen(path string) (*Listener, error) {
	l := &Listener{}
	err := within(SocketPath(path), func(short string) (err error) {
		l.conn, err = net.Dial("unix", short)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reach the writer of %s: %w", path, err)
	}
	if stream, _, err := l.Next(); err != nil || stream != Hello {
		return nil, errors.Join(fmt.Errorf("the writer of %s does not answer: %w", path, err), l.conn.Close())
	}
	return l, nil
}

// Next waits for output; io.EOF comes after the last.
func (l *Listener) Next() (stream byte, p []byte, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(l.conn, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame || head[0] > Stderr {
		return 0, nil, fmt.Errorf("a frame of %d bytes of the stream %d", n, head[0])
	}
	p = make([]byte, n)
	_, err = io.ReadFull(l.conn, p)
	return head[0], p, err
}

// Close stops listening.
func (l *Listener) Close() error { return l.conn.Close() }
