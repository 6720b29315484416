package main

import (
	"strings"
	"testing"

	"shoal/bench/lab"
)

// TestEveryTroubleIsTold: what the usage lists for a host can be done, and is told.
func TestEveryTroubleIsTold(t *testing.T) {
	listed := 0
	for name, trouble := range troubles {
		if trouble.do == nil || trouble.done == "" || strings.Contains(trouble.done, "\n") {
			t.Errorf("%s says %q", name, trouble.done)
		}
		listed += strings.Count(usage, " "+name+" HOST")
	}
	if all := strings.Count(usage, " HOST") - strings.Count(usage, "exec HOST"); listed != all || listed != len(troubles) {
		t.Errorf("the usage lists %d commands for a host, %d of them are known, there are %d", all, listed, len(troubles))
	}
}

func TestHealed(t *testing.T) {
	for want, started := range map[string][]lab.Host{
		"no daemon had to be started, every cable is in, nothing is frozen":         nil,
		"shoald is started again on h1, every cable is in, all nodes are ready":     {{Name: "h1"}},
		"shoald is started again on h1, h3, every cable is in, all nodes are ready": {{Name: "h1"}, {Name: "h3"}},
	} {
		if got := healed(started); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
