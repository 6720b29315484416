package runtimetest

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"shoal/control/api"
	"shoal/node/runtime"
)

func testExec(c *Case) {
	spec := c.Container("run")
	c.Start(spec)
	for code, args := range map[int][]string{0: {Program, "exit", "0"}, 3: {Program, "exit", "3"}} {
		got, err := c.Runtime.Exec(c.Ctx(), spec.ID, args)
		if err != nil || got.ExitCode != code {
			c.Errorf("%q: %+v %v, want code %d", args, got, err, code)
		}
	}
	got, err := c.Runtime.Exec(c.Ctx(), spec.ID, []string{Program, "print", "well", "2"})
	if err != nil || got.ExitCode != 0 || got.Output != "well\nwell\nwell\n" { // twice to one stream, once to the other
		c.Errorf("printed %q, %v", got.Output, err)
	}
	got, err = c.Runtime.Exec(c.Ctx(), spec.ID, []string{Program, "print", strings.Repeat("x", 100), "1000"})
	if err != nil || len(got.Output) != runtime.ExecOutputMax {
		c.Errorf("kept %d bytes of a long output, %v", len(got.Output), err)
	}
	if st, err := c.Runtime.Get(c.Ctx(), spec.ID); err != nil || st.State != runtime.Running {
		c.Errorf("afterwards the container is %+v, %v", st, err)
	}
}

func testExecHangs(c *Case) {
	spec := c.Container("run")
	c.Start(spec)
	ctx, cancel := context.WithTimeout(c.Ctx(), 500*time.Millisecond)
	defer cancel()
	if _, err := c.Runtime.Exec(ctx, spec.ID, []string{Program, "stubborn"}); !errors.Is(err, context.DeadlineExceeded) {
		c.Errorf("a program that hangs: %v", err)
	}
	if got, err := c.Runtime.Exec(c.Ctx(), spec.ID, []string{Program, "exit", "0"}); err != nil || got.ExitCode != 0 {
		c.Errorf("the next one: %+v %v", got, err)
	}
}

func testExecRefusals(c *Case) {
	_, err := c.Runtime.Exec(c.Ctx(), NewID(), []string{Program})
	c.refused(err, errdefs.ErrNotFound, api.NotFound)
	spec := c.Container("exit", "0")
	c.must(c.Runtime.Create(c.Ctx(), spec))
	_, err = c.Runtime.Exec(c.Ctx(), spec.ID, []string{Program})
	c.refused(err, errdefs.ErrFailedPrecondition, api.Conflict)
	_, err = c.Runtime.Start(c.Ctx(), spec.ID)
	c.must(err)
	c.End(spec.ID)
	_, err = c.Runtime.Exec(c.Ctx(), spec.ID, []string{Program})
	c.refused(err, errdefs.ErrFailedPrecondition, api.Conflict)

	runs := c.Container("run")
	c.Start(runs)
	for _, args := range [][]string{nil, {""}} {
		_, err = c.Runtime.Exec(c.Ctx(), runs.ID, args)
		c.refused(err, errdefs.ErrInvalidArgument, api.Invalid)
	}
	if got, err := c.Runtime.Exec(c.Ctx(), runs.ID, []string{"/no/such/program"}); err == nil {
		c.Errorf("a program that is not there: %+v", got)
	}
}

// testExecEnds: a program does not outlive the container that it runs in.
func testExecEnds(c *Case) {
	spec := c.Container("run")
	c.Start(spec)
	ended := make(chan error, 1)
	go func() {
		got, err := c.Runtime.Exec(c.Ctx(), spec.ID, []string{Program, "stubborn"})
		if err == nil && got.ExitCode == 0 {
			err = errors.New("it ended well")
		} else {
			err = nil
		}
		ended <- err
	}()
	c.must(c.Runtime.Stop(c.Ctx(), spec.ID, time.Second))
	select {
	case err := <-ended:
		c.must(err)
	case <-c.Ctx().Done():
		c.Fatal("the program goes on without its container")
	}
}
