package wire

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestAbsentRoutes(t *testing.T) {
	rt := newRouter()
	rt.Handle("GET", "/volumes/{name}", func(w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
	for _, c := range []struct {
		method, path string
		code         int
		message      string
	}{
		{"POST", "/containers/c/exec", 501, "docker exec is not supported by this version: on the container's node, nsenter -t PID -a COMMAND"},
		{"POST", "/v1.41/containers/c/exec", 501, "docker exec is not supported by this version: "},
		{"GET", "/services/s/logs", 501, "docker service logs is not supported by this version: docker service ps"},
		{"GET", "/images/reg:5000/a/b:c/get", 501, "docker save is not supported by this version: "},
		{"GET", "/images/get", 501, "docker save is not supported by this version: "},
		{"GET", "/containers/c/changes", 501, "docker diff is not supported by this version"},
		{"HEAD", "/v1.47/containers/c/archive", 501, "docker cp is not supported by this version: "},
		{"DELETE", "/volumes/v", 501, "docker volume rm is not supported by this version: "},
		{"GET", "/volumes/v", 204, ""},
		{"POST", "/v1.48/build", 400, "client version 1.48 is too new. "},
		{"PATCH", "/volumes/v", 404, "page not found"},
		{"HEAD", "/containers/c/changes", 404, "page not found"},
		{"POST", "/containers/c/nope", 404, "page not found"},
		{"POST", "/v1.x/build", 404, "page not found"},
	} {
		w := ask(rt, c.method, c.path)
		var answer struct{ Message string }
		if c.code != 204 {
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Errorf("%s %s: %v", c.method, c.path, err)
			}
		}
		if w.Code != c.code || !strings.HasPrefix(answer.Message, c.message) {
			t.Errorf("%s %s: %d %q, want %d %q", c.method, c.path, w.Code, answer.Message, c.code, c.message)
		}
	}
}

// Sentences are one line without an end stop, as all of Docker's refusals are,
// and no way out begins like a sentence of its own.
func TestAbsentSentences(t *testing.T) {
	for _, a := range absent {
		if a.what == "" || strings.ContainsAny(a.what+a.instead, "\n") || strings.HasSuffix(a.instead, ".") {
			t.Errorf("%s %s: %q: %q", a.method, a.pattern, a.what, a.instead)
		}
	}
	if len(Absent()) != len(absent) {
		t.Errorf("%d routes of %d", len(Absent()), len(absent))
	}
}
