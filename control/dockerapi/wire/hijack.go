package wire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// Conn is a hijacked connection: raw bytes both ways until both sides closed.
type Conn struct {
	net.Conn
	buffered io.Reader
}

// Read reads what the client sends, first what the HTTP server had already read.
func (c *Conn) Read(p []byte) (int, error) { return c.buffered.Read(p) }

// CloseWrite ends the server's side, so that the client sees the end of output
// while it may still send. Connections that cannot half-close are closed.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// Hijack takes the connection over for attach and exec: 101 UPGRADED when the
// client asked for an upgrade, else 200 with a raw body as clients of old did.
// After a nil error the caller owns the connection and must close it.
func Hijack(w http.ResponseWriter, r *http.Request, tty bool) (*Conn, error) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection of %s: %w", r.URL.Path, err)
	}
	if t, ok := w.(*tracker); ok {
		t.begun = true
	}
	if _, err := io.WriteString(conn, hijackHead(r, tty)); err != nil {
		conn.Close()
		return nil, fmt.Errorf("answer the upgrade of %s: %w", r.URL.Path, err)
	}
	return &Conn{Conn: conn, buffered: unread(buf.Reader, conn)}, nil
}

func hijackHead(r *http.Request, tty bool) string {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "tcp") {
		return "HTTP/1.1 200 OK\r\nContent-Type: " + RawStream + "\r\n\r\n"
	}
	return "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + StreamType(VersionOf(r), tty) +
		"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
}

// unread returns a reader of what buf holds and then of conn itself.
func unread(buf *bufio.Reader, conn net.Conn) io.Reader {
	if n := buf.Buffered(); n > 0 {
		if held, err := buf.Peek(n); err == nil {
			return io.MultiReader(strings.NewReader(string(held)), conn)
		}
	}
	return conn
}
