package fake_test

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"shoal/node/runtime"
	"shoal/node/runtime/fake"
	"shoal/node/runtime/runtimetest"
)

// program does what the suite's program does with the same arguments.
func program(c runtime.Container) fake.Process {
	p := process(c)
	p.Exec = func(args []string) fake.Executed {
		if args[0] != runtimetest.Program {
			return fake.Executed{Error: errors.New("no such file or directory")}
		}
		switch args[1] {
		case "exit":
			code, err := strconv.Atoi(args[2])
			return fake.Executed{Exit: code, Error: err}
		case "print":
			times, err := strconv.Atoi(args[3])
			return fake.Executed{Output: strings.Repeat(args[2]+"\n", times+1), Error: err}
		}
		return fake.Executed{Hangs: true}
	}
	return p
}

func process(c runtime.Container) fake.Process {
	switch c.Args[0] {
	case "exit":
		code, err := strconv.Atoi(c.Args[1])
		return fake.Process{Exits: true, Exit: code, StartError: err}
	case "cat":
		return fake.Process{Echoes: true}
	case "print":
		times, err := strconv.Atoi(c.Args[2])
		return fake.Process{Output: slices.Repeat([]string{c.Args[1]}, times), Errors: []string{c.Args[1]}, Exits: true, StartError: err}
	case "stubborn":
		return fake.Process{Output: []string{"ready"}, Ignores: []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}}
	}
	return fake.Process{Output: []string{"ready"}}
}

func TestSuite(t *testing.T) {
	defer goleak.VerifyNone(t)
	runtimetest.Suite(t, func(*testing.T) runtime.Runtime { return fake.New(fake.Config{Run: program}) })
}

func TestProgrammedEnds(t *testing.T) {
	f := fake.New(fake.Config{Images: []string{"web"}, Registry: []string{"far:1"}})
	ctx := t.Context()
	if _, err := f.EnsureImage(ctx, "far:1", ""); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"one", "two"} {
		if err := f.Create(ctx, runtime.Container{ID: id, Image: "web"}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Start(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Exit("one", 5); err != nil {
		t.Fatal(err)
	}
	f.KillAll()
	for id, code := range map[string]int{"one": 5, "two": 137} {
		if status, err := f.Wait(ctx, id); err != nil || status.ExitCode != code {
			t.Errorf("%s: %+v %v", id, status, err)
		}
	}
	if err := f.Exit("one", 5); err == nil {
		t.Error("a container ended twice")
	}
}
