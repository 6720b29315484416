package tidy

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// rules are all rules, each with a file it must reject.
var rules = []struct {
	name  string
	check func([]File) []string
	path  string
	bad   string
}{
	{"sizes: function", Sizes, "dns/zone/x.go", "package zone\nfunc f() {\n" + strings.Repeat("\n", 80) + "}\n"},
	{"sizes: file", Sizes, "dns/zone/x.go", "package zone\n" + strings.Repeat("// x\n", 600)},
	{"package comments", PackageComments, "dns/zone/x.go", "package zone\n"},
	{"exported docs", ExportedDocs, "dns/zone/x.go", "package zone\nfunc F() {}\n"},
	{"imports: room", Imports, "dns/zone/x.go", "package zone\nimport _ \"shoal/control/api\"\n"},
	{"imports: rank", Imports, "control/store/x.go", "package store\nimport _ \"shoal/control/fsm\"\n"},
	{"imports: upwards", Imports, "node/agent/x.go", "package agent\nimport _ \"shoal/node/daemon\"\n"},
	{"imports: bench", Imports, "node/agent/x.go", "package agent\nimport _ \"shoal/bench/need\"\n"},
	{"imports: banned", Imports, "node/agent/x.go", "package agent\nimport _ \"github.com/moby/swarmkit/v2/api\"\n"},
	{"imports: no rank", Imports, "control/new/x.go", "package new\nimport _ \"shoal/control/api\"\n"},
	{"pure: clock", Pure, "control/fsm/x.go", "package fsm\nimport \"time\"\nvar t = time.Now()\n"},
	{"pure: lots", Pure, "control/alloc/x.go", "package alloc\nimport _ \"math/rand/v2\"\n"},
	{"pure: disk", Pure, "overlay/vxlan/x.go", "package vxlan\nimport \"os\"\nvar f, _ = os.Open(\"/\")\n"},
	{"threads", Threads, "overlay/rtnl/x.go", "package rtnl\nimport \"runtime\"\nfunc f() { runtime.LockOSThread() }\n"},
	{"unfinished", Unfinished, "overlay/rtnl/x.go", "package rtnl\n// TODO: later\nvar x int\n"},
	{"skips", Skips, "overlay/rtnl/x_test.go", "package rtnl\nimport \"testing\"\nfunc TestX(t *testing.T) { t.Skip() }\n"},
}

func TestHouse(t *testing.T) {
	files, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("only %d files were found", len(files))
	}
	seen := map[string]bool{}
	for _, r := range rules {
		name, _, _ := strings.Cut(r.name, ":")
		if seen[name] {
			continue
		}
		seen[name] = true
		t.Run(name, func(t *testing.T) {
			for _, complaint := range r.check(files) {
				t.Error(complaint)
			}
		})
	}
}

func TestEveryRuleRejects(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			f, err := Parse(r.path, r.bad)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.check([]File{f})) == 0 {
				t.Fatal("the rule accepts what it must reject")
			}
		})
	}
}

var makeCommand = regexp.MustCompile(`(?m)^\s*(?:\$ )?make ([a-z][a-z-]*)`)

// TestReadmeCommands checks that every make target that the README names exists.
func TestReadmeCommands(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	found := makeCommand.FindAllStringSubmatch(string(readme), -1)
	if len(found) == 0 {
		t.Fatal("the README names no make target")
	}
	for _, m := range found {
		if !strings.Contains(string(makefile), fmt.Sprintf("\n%s:", m[1])) {
			t.Errorf("README.md says make %s, which the Makefile does not have", m[1])
		}
	}
}
