package engineapi

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/node/runtime"
)

// logLine is a line of a json-file log.
type logLine struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// logPoll is how often a followed log is looked at for more.
const logPoll = 100 * time.Millisecond

// containerLogs sends what a container wrote, and with follow=1 what it goes on
// to write until it ends.
func (a *API) containerLogs(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	out, errs := wire.Bool(r, "stdout"), wire.Bool(r, "stderr")
	if !out && !errs {
		return api.Errorf(api.Invalid, "Bad parameters: you must choose at least one stream")
	}
	c, err := a.find(r.Context(), vars["id"])
	if err != nil {
		return err
	}
	record, _ := a.record(c.ID)
	tty := record.Wish.Spec.TTY
	s := &logSender{frames: wire.NewFrames(w), raw: rawOutput(w, tty), out: out, errs: errs, stamps: wire.Bool(r, "timestamps")}
	if s.since, err = moment(r, "since"); err != nil {
		return err
	}
	if s.until, err = moment(r, "until"); err != nil {
		return err
	}
	lines, err := readLog(c.LogPath, 0)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", wire.StreamType(wire.VersionOf(r), tty))
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return nil // the client has gone
	}
	if err := s.send(tail(lines.lines, r.URL.Query().Get("tail"))); err != nil {
		return nil // the client has gone
	}
	if !wire.Bool(r, "follow") {
		return nil
	}
	return a.followLog(r, c, lines.offset, s)
}

func (a *API) followLog(r *http.Request, c runtime.Status, offset int64, s *logSender) error {
	tick := time.NewTicker(logPoll)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-tick.C:
		}
		now, err := a.cfg.Runtime.Get(r.Context(), c.ID)
		ended := err != nil || now.State == runtime.Exited
		more, err := readLog(c.LogPath, offset)
		if err != nil || s.send(more.lines) != nil {
			return nil // the log or the client has gone
		}
		offset = more.offset
		if ended {
			return nil
		}
	}
}

type logPart struct {
	lines  []logLine
	offset int64 // behind the last whole line, bytes
}

// readLog reads whole lines from offset on; a file that shrank was rotated and
// is read from its start.
func readLog(path string, offset int64) (logPart, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return logPart{}, nil
	}
	if err != nil {
		return logPart{}, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() < offset {
		offset = 0
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return logPart{}, err
	}
	part := logPart{offset: offset}
	reader := bufio.NewReader(f)
	for {
		raw, err := reader.ReadBytes('\n')
		if err != nil { // the end, or a line that is still being written
			return part, nil
		}
		part.offset += int64(len(raw))
		var l logLine
		if json.Unmarshal(raw, &l) == nil {
			part.lines = append(part.lines, l)
		}
	}
}

// tail keeps the last n lines; "" and "all" keep all.
func tail(lines []logLine, n string) []logLine {
	count, err := strconv.Atoi(n)
	if err != nil || count < 0 || count >= len(lines) {
		return lines
	}
	return lines[len(lines)-count:]
}

// moment reads a time as clients send it, in seconds since 1970 with a fraction;
// zero when there is none.
func moment(r *http.Request, name string) (time.Time, error) {
	text := r.URL.Query().Get(name)
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	nanos, err2 := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil || err2 != nil {
		return time.Time{}, api.Errorf(api.Invalid, "%s=%q is not a time in seconds", name, text)
	}
	return time.Unix(seconds, int64(nanos)), nil
}

type logSender struct {
	frames            *wire.Frames
	raw               func([]byte) error // nil for output in frames
	out, errs, stamps bool
	since, until      time.Time // zero for no bound
}

func (s *logSender) send(lines []logLine) error {
	for _, l := range lines {
		stream, wanted := wire.Stdout, s.out
		if l.Stream == "stderr" {
			stream, wanted = wire.Stderr, s.errs
		}
		early := l.Time.Before(s.since)
		if late := !s.until.IsZero() && l.Time.After(s.until); !wanted || early || late {
			continue
		}
		text := l.Log
		if s.stamps {
			text = l.Time.UTC().Format(time.RFC3339Nano) + " " + text
		}
		if err := s.write(stream, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// rawOutput is where the output of a terminal goes, which has no frames; nil for
// other output.
func rawOutput(w http.ResponseWriter, tty bool) func([]byte) error {
	if !tty {
		return nil
	}
	flush := http.NewResponseController(w).Flush
	return func(p []byte) error {
		if _, err := w.Write(p); err != nil {
			return err
		}
		return flush()
	}
}

func (s *logSender) write(stream wire.Stream, p []byte) error {
	if s.raw != nil {
		return s.raw(p)
	}
	return s.frames.Write(stream, p)
}
