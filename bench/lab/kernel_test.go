//go:build lab

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"shoal/bench/need"
)

// newLab brings up a lab without daemons, next to any other lab.
func newLab(t *testing.T) *Lab {
	t.Helper()
	var missing error
	if os.Getuid() != 0 {
		missing = fmt.Errorf("not root")
	}
	need.Feature(t, "root", missing)
	_, missing = exec.LookPath("containerd")
	need.Feature(t, "containerd", missing)
	l, err := New(Config{Hosts: 2, Dir: "/run/shoal-labtest", Prefix: "benchlab", Subnet: "10.78.0.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { takeDown(t, l) })
	return l
}

func takeDown(t *testing.T, l *Lab) {
	t.Helper()
	// The test's own context is over when its cleanup runs.
	if err := l.Down(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	left, err := l.Leftovers()
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

func TestNetwork(t *testing.T) {
	l := newLab(t)
	one, two := l.Hosts()[0], l.Hosts()[1]
	// A host that is there refuses a connection to a port without a listener.
	reach := func() error {
		const connect = "exec 3<>/dev/tcp/%s/9"
		cmd := one.Command(t.Context(), "timeout", "2", "bash", "-c", fmt.Sprintf(connect, two.Address))
		if out, err := cmd.CombinedOutput(); !strings.Contains(string(out), "refused") {
			return fmt.Errorf("connect from %s to %s: %w: %s", one.Name, two.Name, err, out)
		}
		return nil
	}
	if err := reach(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", two.Address.String()+":9"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("from the machine itself: %v", err)
	}
	if err := l.PowerCut(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	if reach() == nil {
		t.Error("a host without power answers")
	}
	if err := l.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := reach(); err != nil {
		t.Error(err)
	}
}

func TestSecondLabIsRefused(t *testing.T) {
	l := newLab(t)
	if err := l.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("second lab: %v", err)
	}
	if again, err := Open(l.cfg.Dir); err != nil || again.cfg.Hosts != 2 {
		t.Errorf("open: %+v %v", again, err)
	}
}

func TestUpTidiesAfterFailure(t *testing.T) {
	l := newLab(t)
	takeDown(t, l)
	l.cfg.Shoald = filepath.Join(t.TempDir(), "none")
	if err := l.Up(t.Context()); err == nil {
		t.Error("a lab without a daemon's program is up")
	}
	left, err := l.Leftovers()
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}
