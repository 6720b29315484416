package containerd

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"pgregory.net/rapid"

	"shoal/node/runtime"
)

func testImage() *image {
	f := &facts{}
	f.config.Config = ocispec.ImageConfig{
		Entrypoint: []string{"/entry"}, Cmd: []string{"default"}, Env: []string{"PATH=/image", "A=1"}, StopSignal: "SIGQUIT",
	}
	return &image{name: "docker.io/x:latest", facts: f}
}

func TestArguments(t *testing.T) {
	for _, test := range []struct {
		entrypoint, args, want []string
	}{
		{nil, nil, []string{"/entry", "default"}},
		{nil, []string{"x"}, []string{"/entry", "x"}},
		{[]string{"/own"}, nil, []string{"/own"}},
		{[]string{"/own"}, []string{"x", "y"}, []string{"/own", "x", "y"}},
	} {
		got, err := arguments(&runtime.Container{Entrypoint: test.entrypoint, Args: test.args}, testImage())
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%v %v: %v %v", test.entrypoint, test.args, got, err)
		}
	}
	if _, err := arguments(&runtime.Container{}, &image{facts: &facts{}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("nothing to run: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	c := &runtime.Container{Hostname: "web", TTY: true, Env: []string{"A=2", "B=", "TERM"}}
	got := environment(c, testImage())
	if want := []string{"PATH=/image", "HOSTNAME=web", "A=2", "B="}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestMergeEnv(t *testing.T) {
	entry := rapid.StringMatching(`[A-C](=[a-c]?)?`)
	rapid.Check(t, func(t *rapid.T) {
		base := mergeEnv(nil, rapid.SliceOf(entry).Draw(t, "base"))
		over := rapid.SliceOf(entry).Draw(t, "over")
		merged := mergeEnv(base, over)
		if again := mergeEnv(merged, over); !slices.Equal(names(again), names(merged)) && !slices.Equal(sorted(again), sorted(merged)) {
			t.Fatalf("%q then %q", merged, again)
		}
		if all := names(merged); len(slices.Compact(sorted(all))) != len(all) {
			t.Fatalf("a name twice in %q", merged)
		}
	})
}

func names(env []string) []string {
	out := make([]string, 0, len(env))
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		out = append(out, name)
	}
	return out
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func TestCapabilities(t *testing.T) {
	defaults := []string{"CAP_CHOWN", "CAP_KILL"}
	for _, test := range []struct {
		add, drop, want []string
	}{
		{nil, nil, []string{"CAP_CHOWN", "CAP_KILL"}},
		{[]string{"net_admin"}, nil, []string{"CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"}},
		{[]string{"CAP_KILL"}, []string{"KILL"}, []string{"CAP_CHOWN", "CAP_KILL"}},
		{nil, []string{"ALL"}, []string{}},
		{[]string{"CAP_SYS_TIME"}, []string{"all"}, []string{"CAP_SYS_TIME"}},
	} {
		got, err := capabilities(defaults, test.add, test.drop)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("+%v -%v: %v %v", test.add, test.drop, got, err)
		}
	}
	if _, err := capabilities(defaults, []string{"FLY"}, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown capability: %v", err)
	}
}

// TestNetworkOfAContainer is its own, the node's or containerd's; only in its own
// anything is set.
func TestNetworkOfAContainer(t *testing.T) {
	for _, test := range []struct {
		name, netns, own string
		want             []specs.LinuxNamespace
		sysctl           map[string]string
	}{
		{"its own", "/ns/task", "/ns/own", []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace, Path: "/ns/task"}},
			map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647", "kernel.msgmax": "9"}},
		{"the node's", "", "/ns/own", []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace, Path: "/ns/own"}},
			map[string]string{"kernel.msgmax": "9"}},
		{"containerd's", "", "", []specs.LinuxNamespace{{Type: specs.PIDNamespace}}, map[string]string{"kernel.msgmax": "9"}},
	} {
		s := &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}, {Type: specs.PIDNamespace}}}}
		setNetwork(s, &runtime.Container{NetNS: test.netns, Sysctls: map[string]string{"kernel.msgmax": "9"}}, test.own)
		if !slices.Equal(s.Linux.Namespaces, test.want) || !maps.Equal(s.Linux.Sysctl, test.sysctl) {
			t.Errorf("%s: %+v %v", test.name, s.Linux.Namespaces, s.Linux.Sysctl)
		}
	}
}

func TestOOMKills(t *testing.T) {
	for text, want := range map[string]int{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n": 2, "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n": 1, "oom_kill 0\n": 0, "": 0, "oom_kill x\n": 0,
	} {
		if got := oomKills([]byte(text)); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestImageID(t *testing.T) {
	for ref, want := range map[string]bool{
		"sha256:ab": true, "abcdefabcdef": true, "abc": false, "cafe": false, "web": false, "sha256:": false, strings.Repeat("a", 65): false,
	} {
		if _, got := imageID(ref); got != want {
			t.Errorf("%q: %v", ref, got)
		}
	}
}

func TestNamesToRemove(t *testing.T) {
	all := []images.Image{{Name: "docker.io/library/a:1"}, {Name: "docker.io/library/a:2"}, {Name: "docker.io/library/a@sha256:x"}, {Name: "docker.io/library/b:1"}}
	for _, test := range []struct {
		name  string
		all   []images.Image
		every bool
		want  []string
	}{
		{"docker.io/library/a:1", all, false, []string{"docker.io/library/a:1"}},
		{"docker.io/library/b:1", all, false, []string{"docker.io/library/b:1"}},
		{"docker.io/library/b:1", all[3:], false, []string{"docker.io/library/b:1"}},
		{"docker.io/library/a:1", all, true, []string{all[0].Name, all[1].Name, all[2].Name, all[3].Name}},
	} {
		if got := namesToRemove(test.name, test.all, test.every); !slices.Equal(got, test.want) {
			t.Errorf("%s of %d: %q", test.name, len(test.all), got)
		}
	}
}

func TestArchiveName(t *testing.T) {
	for ref, want := range map[string]string{"latest": "", "v1.2": "", "web:1": "docker.io/library/web:1", "r.test/x": "r.test/x:latest", "UP:1": ""} {
		if got := archiveName(ref); got != want {
			t.Errorf("%q: %q", ref, got)
		}
	}
}

func TestDecodeAuth(t *testing.T) {
	raw, err := json.Marshal(map[string]string{"username": "u", "password": "p?~"})
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{base64.URLEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw)} {
		ask, err := decodeAuth(header)
		if err != nil {
			t.Fatal(err)
		}
		if user, secret, err := ask("x"); user != "u" || secret != "p?~" || err != nil {
			t.Errorf("%q %q %v", user, secret, err)
		}
	}
	for _, bad := range []string{"?", base64.URLEncoding.EncodeToString([]byte("{"))} {
		if _, err := decodeAuth(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzDecodeAuth(f *testing.F) {
	f.Add("e30=")
	f.Fuzz(func(t *testing.T, header string) {
		if ask, err := decodeAuth(header); (ask == nil) == (err == nil) {
			t.Error("neither credentials nor an error")
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"Spec":{"ID":"a"},"State":"running"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if rec, err := decodeRecord(raw); err == nil && !runtime.ValidID(rec.Spec.ID) {
			t.Errorf("record with the id %q", rec.Spec.ID)
		}
	})
}

func TestRecords(t *testing.T) {
	cfg := Config{StateDir: t.TempDir(), Namespace: "x"}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	whole := &record{Spec: runtime.Container{ID: "a1", Env: []string{"A=b"}}, State: runtime.Created}
	if err := cfg.save(whole); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"b1.json": `{"Spec":{"ID":"c1"},"State":"created"}`, "d1.json": "", "e1.json.new": "{", "f1.json": `{"Spec":{"ID":"f1"},"State":"odd"}`,
	} {
		if err := os.WriteFile(filepath.Join(cfg.recordDir(), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, damaged, err := cfg.records()
	if err != nil || len(found) != 1 || found["a1"] == nil || len(damaged) != 3 {
		t.Errorf("%v %v %v", found, damaged, err)
	}
	if _, damaged, err = cfg.records(); err != nil || len(damaged) != 0 {
		t.Errorf("damaged records are found again: %v %v", damaged, err)
	}
	for range 2 {
		if err := cfg.forget("a1"); err != nil {
			t.Error(err)
		}
	}
}

func TestRegistries(t *testing.T) {
	g := newRegistries([]string{"r.test:5000", "bare.test"})
	for host, want := range map[string]bool{
		"r.test:5000": true, "r.test": false, "bare.test": true, "bare.test:1": true, "127.0.0.1:5000": true, "localhost": true,
		"[::1]:5000": true, "docker.io": false, "10.0.0.1:5000": false,
	} {
		if got, _ := g.plain(host); got != want {
			t.Errorf("%s: plain %v", host, got)
		}
	}
	g.note("a", &net.OpError{Op: "dial", Err: errors.New("refused")})
	if down, stale := g.isDown("a"); !down || stale {
		t.Error("an unreachable registry is asked again at once")
	}
	g.note("a", errors.New("no such tag"))
	if down, _ := g.isDown("a"); down {
		t.Error("a registry that answers is down")
	}
	for i := range maxDown + 1 {
		g.note(string(rune('a'+i)), &net.OpError{Op: "dial", Err: errors.New("refused")})
	}
	if len(g.down) > maxDown {
		t.Errorf("%d registries are remembered", len(g.down))
	}
}

func TestRlimitsAndLimits(t *testing.T) {
	if got := rlimits([]runtime.Ulimit{{Name: "nofile", Soft: 5, Hard: 6}}); len(got) != 1 || got[0].Type != "RLIMIT_NOFILE" || got[0].Hard != 6 {
		t.Errorf("%+v", got)
	}
}
