package main

import (
	"net/http"
	"strings"
	"testing"
)

// TestTraceExitCodes: what scripts rely on.
func TestTraceExitCodes(t *testing.T) {
	paths := func(verdicts ...string) string {
		for i, v := range verdicts {
			verdicts[i] = `{"Verdict":"` + v + `","At":"h1/web.1"}`
		}
		return `"Paths":[` + strings.Join(verdicts, ",") + `]`
	}
	live := func(outcome, differs string) string {
		return `,"Live":{"Way":1,"Outcome":"` + outcome + `","Differs":"` + differs + `"}`
	}
	for _, row := range []struct {
		name   string
		status int
		answer string
		code   int
		prints string
	}{
		{"delivered", 200, paths("delivered"), 0, "delivered at h1/web.1"},
		{"delivered by every way", 200, paths("delivered", "delivered"), 0, "way 2 of 2"},
		{"lost by one way", 200, paths("delivered", "refused"), 1, "refused at h1/web.1"},
		{"refused", 200, paths("refused"), 1, "refused"},
		{"dropped", 200, paths("dropped"), 1, "dropped"},
		{"no route", 200, paths("no route"), 1, "no route"},
		{"no name", 200, paths("no name"), 1, "no name"},
		{"unknown", 200, paths("unknown"), 1, "unknown"},
		{"it left the cluster", 200, paths("left"), 1, "left"},
		{"no way at all", 200, paths(), 1, "tcp from"},
		{"live, as planned", 200, paths("delivered", "refused") + live("connected", ""), 0, "as planned"},
		{"live, answered", 200, paths("delivered") + live("answered", ""), 0, "as planned"},
		{"live, answered from outside the cluster", 200, paths("left") + live("connected", ""), 0, "as planned"},
		{"live, refused as planned", 200, paths("refused") + live("refused", ""), 1, "as planned"},
		{"live, not as planned", 200, paths("delivered") + live("connected", "it was seen nowhere"), 1, "NOT AS PLANNED"},
		{"live, not as planned but refused", 200, paths("delivered") + live("refused", "planned was"), 1, "NOT AS PLANNED"},
		{"nothing has that name", http.StatusNotFound, "", 1, "no such thing"},
		{"a question that makes no sense", http.StatusBadRequest, "", 2, "no such thing"},
		{"the node is in no cluster", http.StatusServiceUnavailable, "", 2, "no such thing"},
	} {
		for _, format := range []string{"table", "json"} {
			d := &daemon{status: row.status, answer: `{"message":"no such thing"}`}
			if row.answer != "" {
				d.answer = `{"Protocol":"tcp","From":"a","To":"b:80",` + row.answer + `}`
			}
			out, err := d.netctl(t, "trace", "--format", format, "a", "b:80")
			code := 0
			if err != nil {
				code, out = exitCode(err), out+err.Error()
			}
			if code != row.code || format == "table" && !strings.Contains(out, row.prints) || out == "" {
				t.Errorf("%s, %s: exit code %d, want %d:\n%s", row.name, format, code, row.code, out)
			}
		}
	}
	t.Setenv("DOCKER_HOST", "unix:///nowhere")
	if err := run(t.Context(), []string{"trace", "a", "b"}); err == nil || exitCode(err) != noAnswer || !strings.Contains(err.Error(), "cannot reach shoald") {
		t.Errorf("without a daemon: %v", err)
	}
}
