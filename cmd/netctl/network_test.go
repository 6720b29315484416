package main

import (
	"net/http"
	"strings"
	"testing"
)

// TestOverlayNamesTheSelfTest: the table says what the network probe is, JSON has its name.
func TestOverlayNamesTheSelfTest(t *testing.T) {
	d := &daemon{status: http.StatusOK, answer: `[{"ID":"n1","Name":"probe"},{"ID":"probe","Name":"probe","Peers":[{"Node":"h2"}]}]`}
	table, err := d.netctl(t, "overlay")
	if err != nil || strings.Count(table, "probe (self-test)") != 2 || strings.Count(table, "\nprobe  ") != 1 {
		t.Errorf("%v\n%s", err, table)
	}
	plain, err := d.netctl(t, "overlay", "--format", "json")
	if err != nil || !strings.Contains(plain, `"Name": "probe"`) || strings.Contains(plain, "self-test") {
		t.Errorf("%v\n%s", err, plain)
	}
}
