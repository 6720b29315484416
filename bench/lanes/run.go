package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Result is what a lane did.
type Result struct {
	Lane                    string
	Passed, Failed, Skipped int
	Took                    time.Duration
	// Failures name the tests (or the command) that failed; Reasons count
	// the words that skipped tests gave.
	Failures []string
	Reasons  map[string]int
}

func (r Result) line() string {
	return fmt.Sprintf("%-12s %4d passed %3d failed %3d skipped  %s",
		r.Lane, r.Passed, r.Failed, r.Skipped, r.Took.Round(100*time.Millisecond))
}

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
}

// goTest runs go test with the arguments and environment and counts its tests.
func goTest(env []string, args ...string) Result {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	return run(cmd, env)
}

// run runs a command that prints go test -json events.
func run(cmd *exec.Cmd, env []string) Result {
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return Result{Failed: 1, Failures: []string{err.Error()}}
	}
	c := newCounter()
	c.read(out)
	if err := cmd.Wait(); err != nil && c.Failed == 0 {
		c.Failed++
		c.Failures = append(c.Failures, fmt.Sprintf("%s: %v", strings.Join(cmd.Args, " "), err))
	}
	return c.Result
}

// counter adds up events. The output of a test is shown only when it failed.
type counter struct {
	Result
	output map[string][]string
}

func newCounter() *counter {
	return &counter{Result: Result{Reasons: map[string]int{}}, output: map[string][]string{}}
}

func (c *counter) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		c.add(e)
	}
}

func (c *counter) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		c.output[key] = append(c.output[key], e.Output)
	case "pass":
		if e.Test != "" {
			c.Passed++
		}
		delete(c.output, key)
	case "skip":
		if e.Test != "" {
			c.Skipped++
			c.Reasons[reason(c.output[key])]++
		}
		delete(c.output, key)
	case "fail", "build-fail":
		c.Failed++
		c.Failures = append(c.Failures, strings.TrimSpace(key))
		fmt.Print(strings.Join(c.output[key], ""))
	}
}

// reason finds the words of bench/need in a skipped test's output.
func reason(output []string) string {
	for _, line := range output {
		if _, words, found := strings.Cut(line, "needs "); found {
			return strings.TrimSpace(words)
		}
	}
	return strings.TrimSpace(strings.Join(output, " "))
}

// command runs a command that is one check.
func command(name string, args ...string) Result {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return Result{Failed: 1, Failures: []string{fmt.Sprintf("%s: %v", strings.Join(cmd.Args, " "), err)}}
	}
	return Result{Passed: 1}
}

// sum adds results up.
func sum(results ...Result) Result {
	total := Result{Reasons: map[string]int{}}
	for _, r := range results {
		total.Passed += r.Passed
		total.Failed += r.Failed
		total.Skipped += r.Skipped
		total.Failures = append(total.Failures, r.Failures...)
		for words, n := range r.Reasons {
			total.Reasons[words] += n
		}
	}
	return total
}

// compile builds the lab tests of a package as one static program.
func compile(pkg string) (string, Result) {
	name := strings.NewReplacer("./", "", "/", "-").Replace(pkg) + ".test"
	path, err := filepath.Abs(filepath.Join(workDir, name))
	if err != nil {
		return "", Result{Failed: 1, Failures: []string{err.Error()}}
	}
	return path, command("go", "test", "-c", "-tags", "lab", "-o", path, pkg)
}
