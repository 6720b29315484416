//go:build lab

package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
)

// patience is how long eventually waits on a quick machine.
const patience = 40 * time.Second

// scripts are the commands that scripts have beyond testscript's own.
type scripts struct{ lab *lab.Lab }

// docker runs the CLI against h1. Where failure is expected, the exit code must
// be the one that the CLI ends with when the daemon refuses: 1.
func (s scripts) docker(ts *testscript.TestScript, neg bool, args []string) {
	check(ts, neg, args, ts.Exec("docker", args...))
}

// netctl runs Shoal's own tool against h1.
func (s scripts) netctl(ts *testscript.TestScript, neg bool, args []string) {
	check(ts, neg, args, ts.Exec(filepath.Join(ts.Getenv("BIN"), "netctl"), args...))
}

func check(ts *testscript.TestScript, neg bool, args []string, err error) {
	var status *exec.ExitError
	switch {
	case err == nil && neg:
		ts.Fatalf("%q succeeded", args)
	case err != nil && !neg:
		ts.Fatalf("%q: %v", args, err)
	case neg && (!errors.As(err, &status) || status.ExitCode() != 1):
		ts.Fatalf("%q: %v instead of exit code 1", args, err)
	}
}

// on HOST COMMAND runs docker or netctl against a host's own socket.
func (s scripts) on(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: on HOST docker|netctl ARG...")
	}
	h, err := s.lab.Host(args[0])
	ts.Check(err)
	before := ts.Getenv("DOCKER_HOST")
	defer ts.Setenv("DOCKER_HOST", before)
	ts.Setenv("DOCKER_HOST", "unix://"+h.Socket)
	switch args[1] {
	case "docker":
		s.docker(ts, neg, args[2:])
	case "netctl":
		s.netctl(ts, neg, args[2:])
	default:
		ts.Fatalf("on %s: docker or netctl, not %s", args[0], args[1])
	}
}

// eventually PATTERN COMMAND ARG... runs docker, netctl or any program until it
// succeeds and its output matches; !PATTERN: until it succeeds and does not match.
// The last output is what stdout and stderr then look at.
func (s scripts) eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN COMMAND ARG...")
	}
	pattern, without := strings.CutPrefix(args[0], "!")
	wanted, err := regexp.Compile("(?m)" + pattern)
	ts.Check(err)
	var out, complaints bytes.Buffer
	for end := time.Now().Add(labtest.Within(patience)); ; time.Sleep(labtest.Within(200 * time.Millisecond)) {
		out.Reset()
		complaints.Reset()
		cmd := exec.Command(s.program(ts, args[1]), args[2:]...)
		cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = ts.MkAbs("."), &out, &complaints, s.env(ts)
		err := cmd.Run()
		if err == nil && wanted.Match(out.Bytes()) != without {
			break
		}
		if time.Now().After(end) {
			ts.Fatalf("%q: %v, at last:\n%s%s", args, err, out.String(), complaints.String())
		}
	}
	fmt.Fprint(ts.Stdout(), out.String())
	fmt.Fprint(ts.Stderr(), complaints.String())
}

// program finds a program as the script's PATH has it.
func (s scripts) program(ts *testscript.TestScript, name string) string {
	if name == "netctl" {
		return filepath.Join(ts.Getenv("BIN"), name)
	}
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	ts.Fatalf("no %s in PATH", name)
	return ""
}

func (s scripts) env(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{"PATH", "DOCKER_HOST", "DOCKER_CONFIG", "HOME", "H1", "H2", "H3"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// curlcount URL N [TASKS] fetches URL N times, each on a new connection, until
// every request was answered and exactly TASKS tasks took part; with ! until none
// is. It prints the tasks and how often each answered.
func (s scripts) curlcount(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: curlcount URL N [TASKS]")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	want := 0
	if len(args) > 2 {
		want, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	for end := time.Now().Add(labtest.Within(patience)); ; time.Sleep(labtest.Within(200 * time.Millisecond)) {
		tasks, failed := count(args[0], n)
		if neg && failed == n || !neg && failed == 0 && (want == 0 || len(tasks) == want) {
			for task, times := range tasks {
				fmt.Fprintf(ts.Stdout(), "%s %d\n", task, times)
			}
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%d of %d requests to %s failed, tasks %v", failed, n, args[0], tasks)
		}
	}
}

// count asks n times and counts how often each task answered.
func count(url string, n int) (tasks map[string]int, failed int) {
	tasks = map[string]int{}
	for range n {
		answer, err := fetch(context.Background(), url)
		task, _, ok := strings.Cut(answer, "\n")
		if err != nil || !ok {
			failed++
			continue
		}
		tasks[strings.TrimPrefix(task, "task=")]++
	}
	return tasks, failed
}
