package runtimetest

import (
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"shoal/control/api"
	"shoal/node/runtime"
)

func testLife(c *Case) {
	spec := c.Container("run")
	c.must(c.Runtime.Create(c.Ctx(), spec))
	status, err := c.Runtime.Get(c.Ctx(), spec.ID)
	c.must(err)
	if status.State != runtime.Created || status.CreatedAt.IsZero() || status.Labels["shoal.task"] != "t1" || status.Name != spec.Name {
		c.Fatalf("created %+v", status)
	}
	pid, err := c.Runtime.Start(c.Ctx(), spec.ID)
	c.must(err)
	again, err := c.Runtime.Start(c.Ctx(), spec.ID)
	if err != nil || again != pid {
		c.Errorf("second start: %d %v, first %d", again, err, pid)
	}
	status, err = c.Runtime.Get(c.Ctx(), spec.ID)
	c.must(err)
	if status.State != runtime.Running || status.PID != pid || status.StartedAt.IsZero() {
		c.Fatalf("running %+v", status)
	}
	c.must(c.Runtime.Remove(c.Ctx(), spec.ID))
	c.must(c.Runtime.Remove(c.Ctx(), spec.ID))
	_, err = c.Runtime.Get(c.Ctx(), spec.ID)
	c.refused(err, errdefs.ErrNotFound, api.NotFound)
}

func testExitCode(c *Case) {
	for _, code := range []string{"0", "3"} {
		spec := c.Container("exit", code)
		c.Start(spec)
		if got := c.End(spec.ID).ExitCode; got != int(code[0]-'0') {
			c.Errorf("exit code %d, not %s", got, code)
		}
		_, err := c.Runtime.Start(c.Ctx(), spec.ID)
		c.refused(err, errdefs.ErrFailedPrecondition, api.Conflict)
		c.must(c.Runtime.Stop(c.Ctx(), spec.ID, time.Second))
	}
}

func testStop(c *Case) {
	for signal, code := range map[string]int{"": 128 + int(syscall.SIGTERM), "SIGUSR1": 128 + int(syscall.SIGUSR1)} {
		spec := c.Container("run")
		spec.StopSignal = signal
		c.Start(spec)
		c.must(c.Runtime.Stop(c.Ctx(), spec.ID, Patience))
		if got := c.End(spec.ID).ExitCode; got != code {
			c.Errorf("stop signal %q: exit code %d, not %d", signal, got, code)
		}
	}
}

func testStubborn(c *Case) {
	spec := c.Container("stubborn")
	c.Start(spec)
	begin := time.Now()
	c.must(c.Runtime.Stop(c.Ctx(), spec.ID, 300*time.Millisecond))
	if took := time.Since(begin); took < 300*time.Millisecond {
		c.Errorf("killed after %v, before the grace was over", took)
	}
	if got := c.End(spec.ID).ExitCode; got != 128+int(syscall.SIGKILL) {
		c.Errorf("exit code %d", got)
	}
}

func testKill(c *Case) {
	spec := c.Container("stubborn")
	c.Start(spec)
	c.refused(c.Runtime.Kill(c.Ctx(), spec.ID, "SIGNOSUCH"), errdefs.ErrInvalidArgument, api.Invalid)
	c.must(c.Runtime.Kill(c.Ctx(), spec.ID, "KILL"))
	if got := c.End(spec.ID).ExitCode; got != 128+int(syscall.SIGKILL) {
		c.Errorf("exit code %d", got)
	}
	c.refused(c.Runtime.Kill(c.Ctx(), spec.ID, "9"), errdefs.ErrFailedPrecondition, api.Conflict)
}

func testRefusals(c *Case) {
	missing := NewID()
	_, err := c.Runtime.Start(c.Ctx(), missing)
	c.refused(err, errdefs.ErrNotFound, api.NotFound)
	_, err = c.Runtime.Wait(c.Ctx(), missing)
	c.refused(err, errdefs.ErrNotFound, api.NotFound)
	c.refused(c.Runtime.Stop(c.Ctx(), missing, 0), errdefs.ErrNotFound, api.NotFound)
	c.refused(c.Runtime.Kill(c.Ctx(), missing, "9"), errdefs.ErrNotFound, api.NotFound)

	spec := c.Container("run")
	c.must(c.Runtime.Create(c.Ctx(), spec))
	c.refused(c.Runtime.Create(c.Ctx(), spec), errdefs.ErrAlreadyExists, api.Conflict)
	c.refused(c.Runtime.Kill(c.Ctx(), spec.ID, "9"), errdefs.ErrFailedPrecondition, api.Conflict)

	for what, spoil := range map[string]func(*runtime.Container){
		"id":         func(s *runtime.Container) { s.ID = "../x" },
		"mount type": func(s *runtime.Container) { s.Mounts = []runtime.Mount{{Type: "x", Target: "/x"}} },
		"mount source": func(s *runtime.Container) {
			s.Mounts = []runtime.Mount{{Type: "bind", Source: "/no/such", Target: "/x"}}
		},
		"mount target": func(s *runtime.Container) { s.Mounts = []runtime.Mount{{Type: "tmpfs", Target: "x"}} },
		"capability":   func(s *runtime.Container) { s.CapAdd = []string{"FLY"} },
		"stop signal":  func(s *runtime.Container) { s.StopSignal = "SIGNOSUCH" },
		"image's name": func(s *runtime.Container) { s.Image = "No Name" },
	} {
		bad := c.Container("run")
		spoil(&bad)
		err := c.Runtime.Create(c.Ctx(), bad)
		if !errors.Is(err, errdefs.ErrInvalidArgument) {
			c.Errorf("bad %s: %v", what, err)
		}
		if _, err := c.Runtime.Get(c.Ctx(), bad.ID); !errors.Is(err, errdefs.ErrNotFound) {
			c.Errorf("bad %s leaves a container: %v", what, err)
		}
	}
}

func testRemoveRunning(c *Case) {
	spec := c.Container("stubborn")
	c.Start(spec)
	c.must(c.Runtime.Remove(c.Ctx(), spec.ID))
	c.must(c.Runtime.Create(c.Ctx(), spec))
}

func testRemoveWhileWaiting(c *Case) {
	spec := c.Container("run")
	c.must(c.Runtime.Create(c.Ctx(), spec))
	ended := make(chan error, 1)
	go func() {
		_, err := c.Runtime.Wait(c.Ctx(), spec.ID)
		ended <- err
	}()
	c.must(c.Runtime.Remove(c.Ctx(), spec.ID))
	c.refused(<-ended, errdefs.ErrNotFound, api.NotFound)
}

func testList(c *Case) {
	one, two := c.Container("run"), c.Container("exit", "7")
	c.must(c.Runtime.Create(c.Ctx(), one))
	c.Start(two)
	c.End(two.ID)
	all, err := c.Runtime.List(c.Ctx())
	c.must(err)
	for _, want := range []struct {
		id    string
		state runtime.State
	}{{one.ID, runtime.Created}, {two.ID, runtime.Exited}} {
		if !slices.ContainsFunc(all, func(s runtime.Status) bool { return s.ID == want.id && s.State == want.state }) {
			c.Errorf("%s is not listed as %s: %+v", want.id, want.state, all)
		}
	}
}
