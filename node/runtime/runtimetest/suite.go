// Package runtimetest is the one test suite that every runtime must pass, and
// the program that its containers run. It never knows which runtime it tests.
package runtimetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"shoal/control/api"
	"shoal/node/runtime"
	"shoal/node/runtime/archive"
)

// Patience bounds every wait of the suite; a slow kernel gets a lot.
const Patience = 60 * time.Second

// Archive is the suite's image as a docker-archive with the given name: the
// program is the test binary that runs.
func Archive(t testing.TB, name string) io.Reader {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	err = archive.Write(&raw, archive.Image{
		Program: program, Path: Program, Tags: []string{name}, Ports: []string{"80/tcp"},
		Healthcheck: &container.HealthConfig{Test: []string{"CMD", Program, "exit", "0"}, Interval: time.Second, Retries: 2}, Shell: []string{"/bin/ash", "-c"},
		Files: map[string]string{
			"/etc/passwd": "root:x:0:0::/root:/bin/sh\nanna:x:1000:1001::/home/anna:/bin/sh\n",
			"/etc/group":  "root:x:0:\nanna:x:1001:\nboats:x:2000:anna\n",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &raw
}

// NewID mints a container id.
func NewID() string {
	var raw [32]byte
	if _, err := rand.Read(raw[:]); err != nil {
		panic(err)
	}
	return hex.EncodeToString(raw[:])
}

// Case is one runtime under test with the suite's image loaded.
type Case struct {
	*testing.T
	Runtime runtime.Runtime
}

// Context ends with the suite's patience.
func (c *Case) Ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	c.Cleanup(cancel)
	return ctx
}

// Container is a container of the suite's image, removed at the end.
func (c *Case) Container(args ...string) runtime.Container {
	spec := runtime.Container{
		ID: NewID(), Name: "web.1.x", Image: Image, Args: args, Hostname: "web",
		Labels:  map[string]string{"shoal.task": "t1"},
		LogPath: filepath.Join(c.TempDir(), "log", "out"),
	}
	c.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if err := c.Runtime.Remove(ctx, spec.ID); err != nil {
			c.Errorf("remove: %v", err)
		}
	})
	return spec
}

// Start creates and starts a container.
func (c *Case) Start(spec runtime.Container) {
	c.Helper()
	c.must(c.Runtime.Create(c.Ctx(), spec))
	pid, err := c.Runtime.Start(c.Ctx(), spec.ID)
	c.must(err)
	if pid <= 0 {
		c.Fatalf("pid %d", pid)
	}
	if spec.Args[0] == "run" || spec.Args[0] == "stubborn" {
		c.Logged(spec, ready)
	}
}

// Logged waits until a container's log has an entry with the text.
func (c *Case) Logged(spec runtime.Container, text string) {
	c.Helper()
	ctx := c.Ctx()
	for {
		raw, err := os.ReadFile(spec.LogPath)
		if strings.Contains(string(raw), `"log":"`+text) {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			c.Fatalf("the log has no %q: %s %v", text, raw, err)
		}
	}
}

// End waits for a container's end.
func (c *Case) End(id string) runtime.Status {
	c.Helper()
	status, err := c.Runtime.Wait(c.Ctx(), id)
	c.must(err)
	if status.State != runtime.Exited || status.FinishedAt.IsZero() || status.PID != 0 {
		c.Fatalf("after the end: %+v", status)
	}
	return status
}

func (c *Case) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// refused checks an error's two classes.
func (c *Case) refused(err, class error, kind api.ErrorKind) {
	c.Helper()
	if !errors.Is(err, class) || api.KindOf(err) != kind {
		c.Errorf("error %v is not %v and %s", err, class, kind)
	}
}

// Suite runs every test on a runtime that make gives, empty, once.
func Suite(t *testing.T, make func(t *testing.T) runtime.Runtime) {
	r := make(t)
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	names, err := r.Load(ctx, Archive(t, Image))
	if err != nil || len(names) != 1 || names[0] != Image {
		t.Fatalf("load: %v %v", names, err)
	}
	for _, test := range []struct {
		name string
		run  func(*Case)
	}{
		{"version", testVersion}, {"images", testImages}, {"tags", testTags}, {"missing image", testMissingImage},
		{"life", testLife}, {"exit code", testExitCode}, {"stop", testStop}, {"stubborn", testStubborn},
		{"kill", testKill}, {"refusals", testRefusals}, {"remove running", testRemoveRunning},
		{"remove while waiting", testRemoveWhileWaiting}, {"image in use", testImageInUse}, {"list", testList},
		{"attach", testAttach}, {"attach before start", testAttachBeforeStart}, {"attach late", testAttachLate},
		{"attach refusals", testAttachRefusals}, {"attach and remove", testAttachAndRemove}, {"renew", testRenew},
		{"exec", testExec}, {"exec hangs", testExecHangs}, {"exec refusals", testExecRefusals}, {"exec outlives nothing", testExecEnds},
	} {
		t.Run(strings.ReplaceAll(test.name, " ", "-"), func(t *testing.T) { test.run(&Case{T: t, Runtime: r}) })
	}
}
