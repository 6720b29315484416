package resolvconf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

const machine = "# a comment\nnameserver 192.0.2.53\n;nameserver 192.0.2.9\nsearch first\nsearch corp.example lab.example\n" +
	"options rotate ndots:2\nnameserver fd00::53%eth0\nnameserver junk\noptions timeout:1\nnameserver\n"

func TestParse(t *testing.T) {
	c := Parse(machine)
	if got, want := fmt.Sprint(c), "{[192.0.2.53 fd00::53%eth0] [corp.example lab.example] [rotate ndots:2 timeout:1]}"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := Parse("search a b\ndomain c d\n").Search; fmt.Sprint(got) != "[c]" {
		t.Errorf("search list %q", got)
	}
}

func TestTargets(t *testing.T) {
	for text, want := range map[string]string{
		"": "[127.0.0.1:53]",
		"nameserver 127.0.0.53\nnameserver ::1\n":                                                          "[127.0.0.53:53 [::1]:53]",
		"nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n# the fourth": "[10.0.0.1:53 10.0.0.2:53 10.0.0.3:53]",
	} {
		if got := fmt.Sprint(Parse(text).Targets()); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestFile goes through what a task finds in its resolv.conf.
func TestFile(t *testing.T) {
	for _, c := range []struct {
		name    string
		own     Config
		machine string
		want    string // behind the nameserver line
	}{
		{"nothing anywhere", Config{}, "", "options ndots:0\n"},
		{"the machine's search list and options", Config{}, machine, "search corp.example lab.example\noptions rotate ndots:2 timeout:1\n"},
		{"a machine without ndots", Config{}, "options rotate\n", "options rotate ndots:0\n"},
		{"a machine with a senseless ndots", Config{}, "options ndots:many edns0\n", "options edns0 ndots:0\n"},
		{"own ndots", Config{Options: []string{"ndots:3"}}, machine, "search corp.example lab.example\noptions ndots:3\n"},
		{"own ndots above what resolvers take", Config{Options: []string{"ndots:99"}}, "", "options ndots:99\n"},
		{"own options hide the machine's", Config{Options: []string{"use-vc", "attempts:1"}}, machine, "search corp.example lab.example\noptions use-vc attempts:1 ndots:0\n"},
		{"own senseless ndots", Config{Options: []string{"ndots:-1", "ndots", "ndots:x"}}, machine, "search corp.example lab.example\noptions ndots:0\n"},
		{"one sensible ndots of two", Config{Options: []string{"ndots:x", "ndots:1"}}, "", "options ndots:1\n"},
		{"own search list", Config{Search: []string{"x.example", "y.example"}}, machine, "search x.example y.example\noptions rotate ndots:2 timeout:1\n"},
		{"no search list wanted", Config{Search: []string{"."}}, "search corp.example\n", "options ndots:0\n"},
		{"a dot among domains", Config{Search: []string{"x.example", "."}}, "", "search x.example\noptions ndots:0\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Merge(c.own, Parse(c.machine)).File(netip.MustParseAddr("127.0.0.11"))
			if want := "nameserver 127.0.0.11\n" + c.want; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestNdots(t *testing.T) {
	for options, want := range map[string]string{
		"": "0 false", "ndots:0": "0 true", "ndots:2 rotate": "2 true", "ndots:2 ndots:1": "1 true", "ndots:x": "0 false", "ndots:1 ndots:x": "1 true",
	} {
		n, set := Config{Options: strings.Fields(options)}.Ndots()
		if got := fmt.Sprint(n, set); got != want {
			t.Errorf("%q: %s, want %s", options, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(machine)
	f.Add("options ndots:\x00\nsearch .\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := Merge(Config{}, Parse(text))
		file := c.File(netip.MustParseAddr("127.0.0.11"))
		again := Parse(file)
		if n, set := again.Ndots(); !set || n < 0 {
			t.Errorf("%q has no ndots", file)
		}
		if len(again.Servers) != 1 || strings.Count(file, "\n") > 3 {
			t.Errorf("%q", file)
		}
	})
}
