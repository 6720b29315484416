//go:build lab

package containerd

import (
	"strings"
	"testing"
	"time"

	shoal "shoal/node/runtime"
	"shoal/node/runtime/runtimetest"
)

// hear reads output until a text has come.
func (b *bench) hear(a shoal.Attached, until string) string {
	b.Helper()
	late := time.AfterFunc(runtimetest.Patience, func() { a.Close() })
	defer late.Stop()
	var heard strings.Builder
	for !strings.Contains(heard.String(), until) {
		_, p, err := a.Next()
		if err != nil {
			b.Fatalf("after %q: %v", heard.String(), err)
		}
		heard.Write(p)
	}
	return heard.String()
}

func (b *bench) attach(id string) shoal.Attached {
	b.Helper()
	a, err := b.r.Attach(b.ctx(), id)
	b.must(err)
	b.Cleanup(func() { a.Close() })
	return a
}

func TestTerminalAttached(t *testing.T) {
	for _, stdin := range []bool{false, true} {
		b := newBench(t)
		c := b.spec("terminal")
		c.TTY, c.OpenStdin = true, stdin
		b.must(b.r.Create(b.ctx(), c))
		a := b.attach(c.ID)
		_, err := b.r.Start(b.ctx(), c.ID)
		b.must(err)
		b.hear(a, "ready\r\n")
		b.must(b.r.Resize(b.ctx(), c.ID, 111, 33))
		b.hear(a, "111x33\r\n")
		if stdin { // the terminal echoes, and turns the key into a signal
			if _, err := a.Write([]byte("\x03")); err != nil {
				t.Fatal(err)
			}
			b.hear(a, "^C")
			if st, err := b.r.Wait(b.ctx(), c.ID); err != nil || st.ExitCode != 2 {
				t.Errorf("after the key: %+v %v", st, err)
			}
		}
	}
}

// What has open input outlives a restart, its output goes on into its log, and
// who attaches again is heard.
func TestRestartKeepsStreams(t *testing.T) {
	b := newBench(t)
	c := b.spec("cat")
	c.OpenStdin = true
	b.start(c)
	before := b.attach(c.ID)
	if _, err := before.Write([]byte("before\n")); err != nil {
		t.Fatal(err)
	}
	b.hear(before, "before\n")
	b.must(before.Close())
	b.restart()
	after := b.attach(c.ID)
	if _, err := after.Write([]byte("after\n")); err != nil {
		t.Fatal(err)
	}
	if heard := b.hear(after, "after\n"); heard != "after\n" {
		t.Errorf("heard %q", heard)
	}
	b.must(after.CloseStdin(b.ctx()))
	if st, err := b.r.Wait(b.ctx(), c.ID); err != nil || st.ExitCode != 0 {
		t.Errorf("end: %+v %v", st, err)
	}
	if log := b.log(c); !strings.Contains(log, `"log":"before\n"`) || !strings.Contains(log, `"log":"after\n"`) {
		t.Errorf("log %s", log)
	}
}

func TestRenewKeepsFiles(t *testing.T) {
	b := newBench(t)
	c := b.spec("touch", "/kept")
	if st, log := b.output(c); st.ExitCode != 0 {
		t.Fatalf("%+v %s", st, log)
	}
	c.Args = []string{"files", "/kept"}
	b.must(b.r.Renew(b.ctx(), c))
	_, err := b.r.Start(b.ctx(), c.ID)
	b.must(err)
	_, err = b.r.Wait(b.ctx(), c.ID)
	b.must(err)
	if log := b.log(c); !strings.Contains(log, "/kept here") {
		t.Errorf("log %s", log)
	}
}
