//go:build lab

package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
	"shoal/bench/need"
)

// TestScripts runs every script with every docker CLI that is there. Scripts in
// testdata/together have names and ports of their own and run side by side; those
// in testdata/alone change nodes or count what is there, so each has the lab for
// itself.
func TestScripts(t *testing.T) {
	clis := clients(t)
	l := labtest.Up(t, lab.Config{Dir: "/run/shoal-conf", Prefix: "sconf", Subnet: "10.79.0.0/24"}, "whoami.tar", "whoami-v2.tar")
	r := startRegistry(t, l)
	for _, c := range clis {
		t.Run(c.version, func(t *testing.T) {
			p := params(l, c, r)
			t.Run("together", func(t *testing.T) {
				p.Dir = filepath.Join("testdata", "together")
				testscript.Run(t, p)
			})
			t.Run("alone", func(t *testing.T) {
				p.Dir = filepath.Join("testdata", "alone")
				testscript.RunT(oneByOne{t}, p)
			})
			t.Run("left", func(t *testing.T) { nothingLeft(t, l) })
		})
	}
}

// client is one docker CLI.
type client struct{ version, dir string }

// clients finds the docker of PATH and that of Debian's docker.io.
func clients(t *testing.T) []client {
	t.Helper()
	var found []client
	if path, err := exec.LookPath("docker"); err == nil {
		found = append(found, client{dir: filepath.Dir(path)})
	}
	old := filepath.Join(labtest.Cache(t), "docker", "20.10")
	if _, err := os.Stat(filepath.Join(old, "docker")); err == nil {
		found = append(found, client{dir: old})
	}
	if len(found) == 0 {
		need.Feature(t, "docker-cli", errors.New("no docker in PATH and none in "+old))
	}
	for i := range found {
		out, err := exec.Command(filepath.Join(found[i].dir, "docker"), "version", "--format", "{{.Client.Version}}").Output()
		// Without a daemon the client prints its version and fails.
		if found[i].version = strings.TrimSpace(string(out)); found[i].version == "" {
			t.Fatalf("docker in %s does not know its version: %v", found[i].dir, err)
		}
	}
	return found
}

// oneByOne is a test whose scripts do not run side by side.
type oneByOne struct{ *testing.T }

// Parallel is refused.
func (oneByOne) Parallel() {}

// Verbose is what go test was told.
func (oneByOne) Verbose() bool { return testing.Verbose() }

// Run runs a script.
func (o oneByOne) Run(name string, f func(testscript.T)) {
	o.T.Run(name, func(t *testing.T) { f(oneByOne{t}) })
}

// params are what scripts find: the CLI as docker, the hosts' addresses as H1 to
// H3, the API of h1 as DOCKER_HOST, the built programs as BIN, and commands.
func params(l *lab.Lab, c client, registry string) testscript.Params {
	s := scripts{lab: l}
	return testscript.Params{
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			for _, h := range l.Hosts() {
				env.Setenv(strings.ToUpper(h.Name), h.Address.String())
			}
			for name, value := range map[string]string{
				"DOCKER_HOST": "unix://" + l.Hosts()[0].Socket, "DOCKER_CONFIG": env.WorkDir, "CLI": c.version,
				"PATH": c.dir + ":" + env.Getenv("PATH"), "BIN": filepath.Dir(labtest.Program(env.T().(testing.TB), "whoami")),
				"REGISTRY": registry,
			} {
				env.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"docker": s.docker, "on": s.on, "eventually": s.eventually, "curlcount": s.curlcount, "netctl": s.netctl,
		},
	}
}

// nothingLeft checks that scripts removed what they made, and removes what a
// failed one left, so that the next CLI starts with the lab that the first had.
func nothingLeft(t *testing.T, l *lab.Lab) {
	h := l.Hosts()[0]
	type object struct{ ID, Id, Name string }
	made := func(path string) (left []object, err error) {
		err = h.Call(t.Context(), http.MethodGet, path, nil, &left)
		return slices.DeleteFunc(left, func(o object) bool { return o.Name == "ingress" }), err
	}
	for kind, list := range map[string]string{"/services/": "/services", "/networks/": "/networks?" + url.Values{"filters": {`{"driver":{"overlay":true}}`}}.Encode()} {
		left, err := made(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range left {
			t.Errorf("scripts left %+v", o)
			labtest.Eventually(t, 30*time.Second, "remove it", func() error {
				return h.Call(t.Context(), http.MethodDelete, kind+o.ID+o.Id, nil, nil)
			})
		}
	}
	labtest.Eventually(t, 30*time.Second, "no task is left", func() error {
		left, err := made("/tasks")
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d tasks are left", len(left))
		}
		return err
	})
}

// fetch is one request on a connection of its own.
func fetch(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, labtest.Within(5*time.Second))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	return string(raw), err
}
