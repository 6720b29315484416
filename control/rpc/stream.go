package rpc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Lines writes the answer of a route as a stream of JSON lines.
type Lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// NewLines begins the stream: the client's Stream call returns.
func NewLines(w http.ResponseWriter) (*Lines, error) {
	l := &Lines{w: w, control: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	if err := l.control.Flush(); err != nil {
		return nil, fmt.Errorf("begin stream: %w", err)
	}
	return l, nil
}

// Write sends one line at once. It fails when the peer does not take it within
// ten seconds.
func (l *Lines) Write(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode line %T: %w", v, err)
	}
	if len(raw) >= maxBody {
		return fmt.Errorf("line of %d bytes is longer than a stream may carry", len(raw))
	}
	if err := l.control.SetWriteDeadline(time.Now().Add(lineTimeout)); err != nil {
		return fmt.Errorf("write line: %w", err)
	}
	if _, err := l.w.Write(append(raw, '\n')); err != nil {
		return fmt.Errorf("write line: %w", err)
	}
	if err := l.control.Flush(); err != nil {
		return fmt.Errorf("write line: %w", err)
	}
	return l.control.SetWriteDeadline(time.Time{})
}

// Stream reads the lines that Lines wrote. It is for one reader.
type Stream struct {
	what string
	body io.ReadCloser
	scan *bufio.Scanner
}

func newStream(what string, body io.ReadCloser) *Stream {
	s := &Stream{what: what, body: body, scan: bufio.NewScanner(body)}
	s.scan.Buffer(nil, maxBody)
	return s
}

// Next decodes the next line into v. The error is io.EOF when the other side
// ended the stream, and api.Unavailable when the connection broke.
func (s *Stream) Next(v any) error {
	if !s.scan.Scan() {
		err := s.scan.Err()
		switch {
		case err == nil:
			return io.EOF
		case errors.Is(err, bufio.ErrTooLong):
			return fmt.Errorf("%s: line is longer than %d bytes", s.what, maxBody)
		}
		return unavailable(s.what, err)
	}
	if err := json.Unmarshal(s.scan.Bytes(), v); err != nil {
		return fmt.Errorf("%s: decode line: %w", s.what, err)
	}
	return nil
}

// Close ends the stream.
func (s *Stream) Close() error { return s.body.Close() }
