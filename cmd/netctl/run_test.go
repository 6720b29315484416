package main

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/cli/cli/command"
)

// daemon is a node's that gives one answer to every question and remembers the last.
type daemon struct {
	status int
	answer string
	asked  string
}

func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.asked = r.URL.RequestURI()
	w.WriteHeader(d.status)
	fmt.Fprint(w, d.answer)
}

// netctl runs the whole program against the daemon.
func (d *daemon) netctl(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	t.Chdir(t.TempDir()) // paths of sockets are short
	l, err := net.Listen("unix", "s")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: d}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	path, err := filepath.Abs("s")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_HOST", "unix://"+path)
	t.Setenv("DOCKER_CONFIG", filepath.Dir(path))
	var out strings.Builder
	err = run(t.Context(), args, command.WithCombinedStreams(&out))
	return out.String(), err
}

// TestFlagsBeforeTheCommand: the flags of views mean the same before and after it,
// and what cannot be before or after says so.
func TestFlagsBeforeTheCommand(t *testing.T) {
	const drift, networks = `{"Loop":{"Steps":3},"Differences":[]}`, `[{"Id":"n1","Name":"app"}]`
	for _, row := range []struct{ args, answer, asked, prints, complaint string }{
		{"drift", drift, "/shoal/drift?", "3 steps, 0 failed", ""},
		{"drift --format json", drift, "/shoal/drift?", `"Steps": 3`, ""},
		{"--format json drift", drift, "/shoal/drift?", `"Steps": 3`, ""},
		{"--node h1 drift", drift, "/shoal/drift?node=h1", "3 steps", ""},
		{"--node=h1 --format=json drift --healed", `{}`, "/shoal/healed?node=h1", `"Last"`, ""},
		{"--format json drift --format table", drift, "/shoal/drift?", "3 steps", ""},
		{"--format json network ls", networks, "/networks", `"Name":"app"`, ""},
		{"--node h1 network ls", "", "", "", "netctl network ls takes no --node"},
		{"--node h1 tunnels rotate", "", "", "", "netctl tunnels rotate takes no --node"},
		{"drift --host unix:///x", "", "", "", "--host stands before the command: netctl --host ... drift"},
		{"drift -H unix:///x", "", "", "", "--host stands before the command: netctl --host ... drift"},
		{"drift --bogus", "", "", "", "unknown flag: --bogus"},
		{"--format json nosuch", "", "", "", `unknown command "nosuch"`},
	} {
		d := &daemon{status: http.StatusOK, answer: row.answer}
		out, err := d.netctl(t, strings.Fields(row.args)...)
		if row.complaint != "" {
			if err == nil || !strings.Contains(err.Error(), row.complaint) || d.asked != "" {
				t.Errorf("%s: %v, asked %q, want %q", row.args, err, d.asked, row.complaint)
			}
			continue
		}
		if err != nil || !strings.HasSuffix(d.asked, row.asked) || !strings.Contains(out, row.prints) {
			t.Errorf("%s: asked %q, %v:\n%s", row.args, d.asked, err, out)
		}
	}
}
