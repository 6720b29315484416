package runtimetest

import (
	"errors"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"shoal/control/api"
	"shoal/node/runtime"
)

func (c *Case) attach(id string) runtime.Attached {
	c.Helper()
	attached, err := c.Runtime.Attach(c.Ctx(), id)
	c.must(err)
	c.Cleanup(func() { attached.Close() })
	return attached
}

// heard collects output until there is no more, or a text has come.
func (c *Case) heard(a runtime.Attached, until string) (out, errs string) {
	c.Helper()
	late := time.AfterFunc(Patience, func() { a.Close() })
	defer late.Stop()
	for until == "" || !strings.Contains(out+errs, until) {
		stream, p, err := a.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) || until != "" {
				c.Fatalf("after %q and %q: %v", out, errs, err)
			}
			return out, errs
		}
		if stream == runtime.Stderr {
			errs += string(p)
		} else {
			out += string(p)
		}
	}
	return out, errs
}

func testAttach(c *Case) {
	spec := c.Container("cat")
	spec.OpenStdin = true
	c.Start(spec)
	one, two := c.attach(spec.ID), c.attach(spec.ID)
	for _, text := range []string{"first\n", "no end of line"} {
		if n, err := one.Write([]byte(text)); err != nil || n != len(text) {
			c.Fatalf("wrote %d: %v", n, err)
		}
		for _, a := range []runtime.Attached{one, two} {
			if out, errs := c.heard(a, text); out != text || errs != "" {
				c.Errorf("heard %q and %q of %q", out, errs, text)
			}
		}
	}
	c.Logged(spec, "first")
	if st, err := c.Runtime.Get(c.Ctx(), spec.ID); err != nil || st.State != runtime.Running {
		c.Errorf("before the input's end: %+v %v", st, err)
	}
	c.must(one.CloseStdin(c.Ctx()))
	if code := c.End(spec.ID).ExitCode; code != 0 {
		c.Errorf("exit code %d", code)
	}
	for _, a := range []runtime.Attached{one, two} {
		if out, errs := c.heard(a, ""); out+errs != "" {
			c.Errorf("after all: %q %q", out, errs)
		}
	}
}

// testAttachBeforeStart: whoever is there before the start hears everything.
func testAttachBeforeStart(c *Case) {
	const times = 2000
	for _, stdin := range []bool{false, true} {
		spec := c.Container("print", "all of it", "2000")
		spec.OpenStdin = stdin
		c.must(c.Runtime.Create(c.Ctx(), spec))
		attached := c.attach(spec.ID)
		_, err := c.Runtime.Start(c.Ctx(), spec.ID)
		c.must(err)
		out, errs := c.heard(attached, "")
		if n := strings.Count(out, "all of it\n"); n != times || errs != "all of it\n" {
			c.Errorf("stdin open %v: heard %d of %d, %q", stdin, n, times, errs)
		}
		if _, err := attached.Write([]byte("x")); err == nil && !stdin {
			c.Error("a container without input takes some")
		}
		c.End(spec.ID)
	}
}

// testAttachLate: one that goes disturbs nobody.
func testAttachLate(c *Case) {
	spec := c.Container("cat")
	spec.OpenStdin = true
	c.Start(spec)
	gone, stays := c.attach(spec.ID), c.attach(spec.ID)
	c.must(gone.Close())
	_, err := stays.Write([]byte("still here\n"))
	c.must(err)
	c.heard(stays, "still here\n")
	if st, err := c.Runtime.Get(c.Ctx(), spec.ID); err != nil || st.State != runtime.Running {
		c.Errorf("afterwards: %+v %v", st, err)
	}
	c.must(c.Runtime.Stop(c.Ctx(), spec.ID, time.Second))
}

func testAttachRefusals(c *Case) {
	_, err := c.Runtime.Attach(c.Ctx(), NewID())
	c.refused(err, errdefs.ErrNotFound, api.NotFound)
	c.refused(c.Runtime.Resize(c.Ctx(), NewID(), 80, 25), errdefs.ErrNotFound, api.NotFound)
	spec := c.Container("exit", "0")
	c.must(c.Runtime.Create(c.Ctx(), spec))
	c.refused(c.Runtime.Resize(c.Ctx(), spec.ID, 80, 25), errdefs.ErrFailedPrecondition, api.Conflict)
	_, err = c.Runtime.Start(c.Ctx(), spec.ID)
	c.must(err)
	c.End(spec.ID)
	_, err = c.Runtime.Attach(c.Ctx(), spec.ID)
	c.refused(err, errdefs.ErrFailedPrecondition, api.Conflict)
}

func testAttachAndRemove(c *Case) {
	spec := c.Container("run")
	c.must(c.Runtime.Create(c.Ctx(), spec))
	attached := c.attach(spec.ID)
	c.must(c.Runtime.Remove(c.Ctx(), spec.ID))
	if _, _, err := attached.Next(); !errors.Is(err, io.EOF) {
		c.Errorf("a container that never ran: %v", err)
	}
}

func testRenew(c *Case) {
	spec := c.Container("exit", "3")
	c.refused(c.Runtime.Renew(c.Ctx(), spec), errdefs.ErrNotFound, api.NotFound)
	c.Start(spec)
	c.End(spec.ID)
	spec.Args = []string{"run"}
	c.must(c.Runtime.Renew(c.Ctx(), spec))
	if st, err := c.Runtime.Get(c.Ctx(), spec.ID); err != nil || st.State != runtime.Created {
		c.Errorf("renewed: %+v %v", st, err)
	}
	_, err := c.Runtime.Start(c.Ctx(), spec.ID)
	c.must(err)
	c.Logged(spec, ready)
	c.refused(c.Runtime.Renew(c.Ctx(), spec), errdefs.ErrFailedPrecondition, api.Conflict)
	c.must(c.Runtime.Stop(c.Ctx(), spec.ID, Patience))
	c.End(spec.ID)
}
