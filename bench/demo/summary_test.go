package main

import (
	"strings"
	"testing"
)

func TestClaimsAllHeld(t *testing.T) {
	for name, test := range map[string]struct {
		claims claims
		want   bool
	}{
		"nothing was judged": {nil, false},
		"all held":           {claims{{text: "a", held: true}, {text: "b", held: true}}, true},
		"one did not":        {claims{{text: "a", held: true}, {text: "b"}}, false},
	} {
		if got := test.claims.allHeld(); got != test.want {
			t.Errorf("%s: all held %v", name, got)
		}
	}
}

func TestTable(t *testing.T) {
	got := claims{
		{text: "short", held: true, figure: "12ms"},
		{text: "rather longer", figure: "broken\nin many\nlines"},
	}.table()
	want := strings.Join([]string{
		"held          short          12ms",
		"DID NOT HOLD  rather longer  broken …",
		"1 of 2 held",
		"",
	}, "\n")
	if got != want {
		t.Errorf("table\n%s\nwant\n%s", got, want)
	}
}
