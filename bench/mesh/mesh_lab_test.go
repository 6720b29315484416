//go:build lab

package main

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"shoal/bench/lab/labtest"
	"shoal/bench/need"
)

// TestShort: every contender answers, and the table is whole. How fast they are
// is not a test's business.
func TestShort(t *testing.T) {
	labtest.Features(t)
	_, missing := exec.LookPath("haproxy")
	need.Feature(t, "haproxy", missing)
	out := t.TempDir()
	program := labtest.Program(t, "mesh")
	text, err := exec.CommandContext(t.Context(), program, "-short", "-bin", filepath.Dir(program), "-out", out,
		"-patience", labtest.Within(time.Minute).String()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	raw, err := os.ReadFile(filepath.Join(out, "mesh.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	contenders := map[string]int{}
	for _, s := range r.Scenarios {
		contenders[s.Name] = len(s.Contenders)
	}
	want := map[string]int{"vip-local": 6, "vip-remote": 7, "port-local": 5, "port-remote": 5, "services": 4}
	if !maps.Equal(contenders, want) || len(r.Goals) != len(aims) {
		t.Errorf("contenders %v, want %v; %d of %d aims", contenders, want, len(r.Goals), len(aims))
	}
	for _, name := range []string{"mesh.md", "mesh.svg"} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	t.Logf("%s", text)
}
