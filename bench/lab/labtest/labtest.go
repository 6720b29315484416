// Package labtest brings up a lab for a package of tests, with the patience that
// the machine needs, and takes it away again. It decides nothing about what is
// tested, and it never builds: the programs are those of `make build`.
package labtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"shoal/bench/lab"
	"shoal/bench/need"
	"shoal/control/genesis"
	"shoal/dataplane/nft"
	"shoal/overlay/netns"
)

// emulated is how many times slower than natively a machine is that QEMU emulates.
const emulated = 15

// Patience is what every deadline of a test is multiplied with: SHOAL_LAB_PATIENCE,
// or else 1 natively and more in an emulated machine.
func Patience() float64 {
	if factor, err := strconv.ParseFloat(os.Getenv("SHOAL_LAB_PATIENCE"), 64); err == nil && factor > 0 {
		return factor
	}
	if os.Getenv("SHOAL_VM") != "" {
		return emulated
	}
	return 1
}

// Within is d on a quick machine, and longer on a slow one.
func Within(d time.Duration) time.Duration { return time.Duration(float64(d) * Patience()) }

// Program is the path of a built program or image: below SHOAL_BIN, or else bin/
// of the repository.
func Program(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("SHOAL_BIN")
	if dir == "" {
		root, err := repository()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(root, "bin")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

// Cache is the repository's directory for what is fetched or built for tests.
func Cache(t testing.TB) string {
	t.Helper()
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, ".cache")
}

// repository is the nearest directory above the current one that has a go.mod.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == "/" {
			return "", errors.New("find the repository: no go.mod above the current directory")
		}
		dir = filepath.Dir(dir)
	}
}

// Up brings a lab up with the built programs and the images named, as they are
// called in bin/, and takes it away at the end of the test, which fails when
// anything of it is left on the machine.
func Up(t testing.TB, cfg lab.Config, images ...string) *lab.Lab {
	t.Helper()
	Features(t)
	cfg.Shoald = Program(t, "shoald")
	for _, name := range images {
		cfg.Images = append(cfg.Images, Program(t, name))
	}
	cfg.Patience = Within(time.Minute)
	cfg.DaemonFlags = append(pace(), cfg.DaemonFlags...)
	if balancer := os.Getenv("SHOAL_LAB_BALANCER"); balancer != "" {
		cfg.DaemonFlags = append(cfg.DaemonFlags, "--balancer", balancer)
	}
	if Patience() > 1 {
		cfg.Heartbeat = Within(genesis.DefaultHeartbeat) / 2
	}
	l, err := lab.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	alone(t, cfg.Dir)
	if err := sweep(t, cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { down(t, l) })
	return l
}

// alone waits until no other run of the same tests has its lab in the directory,
// and keeps others away until the test has ended. The lock is a socket without a
// file, which ends with the process that has it.
func alone(t testing.TB, dir string) {
	t.Helper()
	Eventually(t, 10*time.Minute, "the lab of another run in "+dir+" ends", func() error {
		lock, err := net.Listen("unix", "@"+dir)
		if err == nil {
			t.Cleanup(func() { _ = lock.Close() }) // a socket without a file has nothing to lose
		}
		return err
	})
}

// sweep takes away what a run of the same tests left that was killed.
func sweep(t testing.TB, dir string) error {
	old, err := lab.Open(dir)
	if err != nil {
		return nil // nothing was left
	}
	return old.Down(t.Context())
}

func down(t testing.TB, l *lab.Lab) {
	if t.Failed() {
		logs(t, l)
	}
	// The test's own context is over when its cleanup runs.
	if err := l.Down(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	left, err := l.Leftovers()
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q %v", left, err)
	}
}

// logs keeps the daemons' logs of a failed run where SHOAL_LAB_LOGS says, if it does.
func logs(t testing.TB, l *lab.Lab) {
	for _, h := range l.Hosts() {
		raw, err := os.ReadFile(h.LogFile())
		if err != nil {
			raw = []byte(err.Error())
		}
		keep(t, h.Namespace+".log", raw)
	}
}

// views are what a daemon tells of its network.
var views = []string{"drift", "lb", "endpoints", "overlay", "gossip", "dns"}

// Views keeps what every daemon of a lab tells of its network, where
// SHOAL_LAB_LOGS says, if it does.
func Views(t testing.TB, l *lab.Lab) {
	for _, h := range l.Hosts() {
		for _, view := range views {
			var raw json.RawMessage
			if err := h.Call(t.Context(), http.MethodGet, "/shoal/"+view, nil, &raw); err != nil {
				raw = []byte(err.Error())
			}
			keep(t, h.Namespace+"."+view, raw)
		}
	}
}

func keep(t testing.TB, name string, raw []byte) {
	if to := os.Getenv("SHOAL_LAB_LOGS"); to != "" {
		if err := os.WriteFile(filepath.Join(to, name), raw, 0o644); err != nil {
			t.Log(err)
		}
	}
}

// pace slows the managers' and the gossip's clocks down on a slow machine.
func pace() []string {
	factor := Patience()
	if factor <= 1 {
		return nil
	}
	election := time.Duration(factor/3*1000) * time.Millisecond
	return []string{
		"--gossip-scale", strconv.FormatFloat(max(1, factor/3), 'f', 1, 64),
		"--raft-election-timeout", election.String(),
	}
}

// Features ends the test unless the machine can hold a lab.
func Features(t testing.TB) {
	t.Helper()
	var missing error
	if os.Getuid() != 0 {
		missing = errors.New("not root")
	}
	need.Feature(t, "root", missing)
	need.Feature(t, "netns", namespaces(t.TempDir()))
	need.Feature(t, "vxlan", vxlan())
	need.Feature(t, "nft", nft.Probe(t.Context()))
	_, missing = exec.LookPath("containerd")
	need.Feature(t, "containerd", missing)
}

// namespaces makes and removes a network namespace.
func namespaces(dir string) error {
	path := filepath.Join(dir, "ns")
	if err := netns.Create(path); err != nil {
		return err
	}
	return netns.Delete(path)
}

// vxlan makes and removes a VXLAN link, to see whether the kernel has the kind.
func vxlan() error {
	name := fmt.Sprintf("vxp%d", os.Getpid())
	add := exec.Command("ip", "link", "add", name, "type", "vxlan", "id", "77", "dstport", "4790")
	if out, err := add.CombinedOutput(); err != nil {
		return fmt.Errorf("make a vxlan link: %w: %s", err, bytes.TrimSpace(out))
	}
	if out, err := exec.Command("ip", "link", "del", name).CombinedOutput(); err != nil {
		return fmt.Errorf("remove a vxlan link: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Eventually asks check until it is content, and fails the test when it is not
// content within d on a quick machine.
func Eventually(t testing.TB, d time.Duration, what string, check func() error) {
	t.Helper()
	end := time.Now().Add(Within(d))
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %v", what, Within(d), err)
		}
		time.Sleep(Within(50 * time.Millisecond)) // who asks must not starve who answers
	}
}
