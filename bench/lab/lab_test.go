package lab

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNew(t *testing.T) {
	l, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := l.Host("h2")
	if err != nil {
		t.Fatal(err)
	}
	if h.Namespace != "shoal-h2" || h.Address.String() != "10.77.0.2" || h.Dir != "/run/shoal-lab/h2" || h.Socket != "/run/shoal-lab/h2/shoal.sock" {
		t.Errorf("host %+v", h)
	}
	if got := l.namespaces(); !slices.Equal(got, []string{"shoal-lan", "shoal-h1", "shoal-h2", "shoal-h3"}) {
		t.Errorf("namespaces %v", got)
	}
	for _, name := range []string{"h0", "h4", "x", "", "hh1"} {
		if _, err := l.Host(name); err == nil {
			t.Errorf("host %q exists", name)
		}
	}
	for _, bad := range []Config{
		{Hosts: -1}, {Hosts: MaxHosts + 1}, {Subnet: "10.0.0.0/8"}, {Subnet: "fd00::/24"}, {Subnet: "x"},
		{Dir: "relative"}, {Dir: "/"}, {Dir: "/run/.."}, {Prefix: "longer-than-a-link"},
	} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v is a lab", bad)
		}
	}
}

func TestManagers(t *testing.T) {
	l, err := New(Config{Hosts: 5})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range l.Hosts() {
		if h.Manager() != (h.Index <= 3) {
			t.Errorf("%s is manager: %v", h.Name, h.Manager())
		}
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a ) b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3\n"
	p, err := parseStat([]byte(line))
	if err != nil || p != (process{pid: 42, parent: 7, state: "S", start: "98765"}) {
		t.Errorf("%+v %v", p, err)
	}
	for _, bad := range []string{"", "42", "42 (x) S 1", "x (y) " + strings.Repeat("1 ", 30), "42 (x) S x" + strings.Repeat(" 1", 30)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is a status", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a ) b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3\n"))
	f.Add([]byte(") 1"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := parseStat(raw); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
	})
}

func TestMountPoint(t *testing.T) {
	const before, after = "36 35 98:0 /mnt1 ", " rw,noatime master:1 - ext3 /dev/root rw"
	for text, want := range map[string]string{"/a": "/a", `/a\040b`: "/a b", `/a\134`: `/a\`, `/a\9x`: `/a\9x`} {
		if got, ok := mountPoint(before + text + after); !ok || got != want {
			t.Errorf("%q: %q %v", text, got, ok)
		}
	}
	if _, ok := mountPoint("1 2 3"); ok {
		t.Error("a short line is a mount")
	}
}

func TestUnder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := "/" + rapid.StringMatching(`[a-z]{1,5}`).Draw(t, "dir")
		tail := rapid.StringMatching(`[a-z]{1,5}`).Draw(t, "tail")
		if !under(dir, dir) || !under(dir, dir+"/"+tail) || under(dir, dir+tail) || under(dir+"/"+tail, dir) {
			t.Fatalf("%q %q", dir, tail)
		}
	})
}

func TestFollows(t *testing.T) {
	args := []string{"shim", "-namespace", "shoal-h1", "-address"}
	if !follows(args, "-namespace", "shoal-h1") || follows(args, "-namespace", "shoal-h") || follows(args, "-address", "x") || follows(nil, "a", "b") {
		t.Error("wrong flags found")
	}
}

func TestAncestry(t *testing.T) {
	all := []process{{pid: 1}, {pid: 5, parent: 1}, {pid: 7, parent: 5}, {pid: 8, parent: 5}}
	line := ancestry(all, 7)
	for pid, want := range map[int]bool{1: true, 5: true, 7: true, 8: false} {
		if line[pid] != want {
			t.Errorf("process %d runs above 7: %v", pid, line[pid])
		}
	}
	if len(ancestry([]process{{pid: 2, parent: 3}, {pid: 3, parent: 2}}, 2)) != 2 {
		t.Error("a circle of parents has no end")
	}
}
