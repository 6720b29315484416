package main

import (
	"maps"
	"testing"
)

func TestMasked(t *testing.T) {
	got := masked("join --token SWMTKN-1-4gbu871ifoohz-3y6i8hld424p 10.77.0.1:2377\n")
	if want := "join --token SWMTKN-1-******** 10.77.0.1:2377\n"; got != want {
		t.Errorf("masked %q, want %q", got, want)
	}
}

func TestQuoted(t *testing.T) {
	got := quoted([]string{"netctl", "-H", "unix:///run/s.sock", "--constraint", "node.hostname==h2", "a b", "", "it's", "*"})
	want := `netctl -H unix:///run/s.sock --constraint node.hostname==h2 'a b' '' 'it'\''s' '*'`
	if got != want {
		t.Errorf("quoted %s, want %s", got, want)
	}
}

func TestOnce(t *testing.T) {
	got := once("overall progress: 0 out of 2 tasks\n1/2:  \noverall progress: 0 out of 2 tasks\noverall progress: 2 out of 2 tasks\n")
	if want := "overall progress: 0 out of 2 tasks\n1/2:  \noverall progress: 2 out of 2 tasks\n"; got != want {
		t.Errorf("once %q", got)
	}
}

func TestIndented(t *testing.T) {
	if got := indented("a  \n b\n\n"); got != "    a\n     b\n" {
		t.Errorf("indented %q", got)
	}
	if got := indented(" \n"); got != "" {
		t.Errorf("indented nothing: %q", got)
	}
}

func TestCounts(t *testing.T) {
	got, err := counts("     10 task=web.1\n      2 task=web.2\n")
	if err != nil || !maps.Equal(got, map[string]int{"web.1": 10, "web.2": 2}) || total(got) != 12 {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"x task=web.1\n", "3\n", "3 something\n", "3 other=1\n"} {
		if _, err := counts(bad); err == nil {
			t.Errorf("%q is a count", bad)
		}
	}
}
