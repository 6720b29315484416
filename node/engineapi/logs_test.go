package engineapi

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"shoal/control/dockerapi/wire"
)

// frames reads framed output until its end: "1:text" or "2:text" each.
func frames(t *testing.T, r io.Reader) (out []string) {
	t.Helper()
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return out
		}
		text := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(r, text); err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%d:%s", head[0], text))
	}
}

func (h *host) logs(query string) []string {
	h.t.Helper()
	resp, err := http.Get(h.url + "/containers/aaa/logs?" + query)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != wire.MultiplexedStream {
		h.t.Errorf("content type %q", got)
	}
	return frames(h.t, resp.Body)
}

func TestLogs(t *testing.T) {
	h := newHost(t)
	id := strings.Repeat("a", 64)
	h.container(id, "web", nil)
	h.write(id, `{"log":"one\n","stream":"stdout","time":"2026-01-02T12:00:00Z"}
{"log":"two\n","stream":"stderr","time":"2026-01-02T12:00:01.5Z"}
damaged
{"log":"three\n","stream":"stdout","time":"2026-01-02T12:00:02Z"}
{"log":"half`)
	at := noon.Unix() + 1
	tests := map[string][]string{
		"stdout=1&stderr=1":          {"1:one\n", "2:two\n", "1:three\n"},
		"stdout=1":                   {"1:one\n", "1:three\n"},
		"stderr=1":                   {"2:two\n"},
		"stdout=1&stderr=1&tail=1":   {"1:three\n"},
		"stdout=1&stderr=1&tail=0":   nil,
		"stdout=1&stderr=1&tail=all": {"1:one\n", "2:two\n", "1:three\n"},
		"stderr=1&timestamps=1":      {"2:2026-01-02T12:00:01.5Z two\n"},
		fmt.Sprintf("stdout=1&stderr=1&since=%d.5", at):    {"2:two\n", "1:three\n"},
		fmt.Sprintf("stdout=1&stderr=1&since=%d.6", at):    {"1:three\n"},
		fmt.Sprintf("stdout=1&stderr=1&until=%d.0000", at): {"1:one\n"},
	}
	for query, want := range tests {
		if got := h.logs(query); !slices.Equal(got, want) {
			t.Errorf("%s gives %q, want %q", query, got, want)
		}
	}
}

func (h *host) write(id, text string) {
	h.t.Helper()
	f, err := os.OpenFile(filepath.Join(h.dir, id+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		h.t.Fatal(err)
	}
}

func TestLogsFollow(t *testing.T) {
	h := newHost(t)
	id := strings.Repeat("a", 64)
	h.container(id, "web", nil)
	resp, err := http.Get(h.url + "/containers/aaa/logs?stdout=1&follow=1") // answers before there is any line
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	h.write(id, `{"log":"one\n","stream":"stdout","time":"2026-01-02T12:00:00Z"}`+"\n"+`{"log":"tw`)
	h.write(id, `o\n","stream":"stdout","time":"2026-01-02T12:00:00Z"}`+"\n")
	if err := h.runtime.Exit(id, 0); err != nil {
		t.Fatal(err)
	}
	if got, want := frames(t, resp.Body), []string{"1:one\n", "1:two\n"}; !slices.Equal(got, want) {
		t.Errorf("followed %q, want %q", got, want)
	}
}

func FuzzReadLog(f *testing.F) {
	f.Add([]byte("{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T12:00:00Z\"}\nhalf"), int64(3))
	f.Fuzz(func(t *testing.T, content []byte, offset int64) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		part, err := readLog(path, max(offset, 0))
		if err != nil || part.offset > int64(len(content)) {
			t.Errorf("read to %d of %d: %v", part.offset, len(content), err)
		}
	})
}
