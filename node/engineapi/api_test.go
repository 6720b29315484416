package engineapi

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/api/types/volume"
	"go.uber.org/goleak"

	"shoal/control/dockerapi/wire"
	"shoal/node/runtime"
	"shoal/node/runtime/fake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// host is a node's API over HTTP, with the runtime that it shows.
type host struct {
	t       *testing.T
	api     *API
	runtime *fake.Runtime
	url     string
	dir     string
	cluster chan events.Message
	ports   map[string][]swarm.PortConfig // of tasks
	modes   map[string]string             // likewise
}

func newHost(t *testing.T) *host {
	h := &host{t: t, dir: t.TempDir(), cluster: make(chan events.Message)}
	h.runtime = fake.New(fake.Config{
		Images: []string{"web:1", "web:2", "db:1"}, Registry: []string{"far:1"}, Now: func() time.Time { return noon },
		Run: func(c runtime.Container) fake.Process { return fake.Process{Output: c.Args, Echoes: c.OpenStdin} },
	})
	h.api = New(Config{
		Runtime: h.runtime, Swarm: func() swarm.Info { return swarm.Info{LocalNodeState: swarm.LocalNodeStateActive} },
		Hostname: "host1", Version: "1.2", StateDir: h.dir, Now: func() time.Time { return noon.Add(90 * time.Second) },
		Ports:       func(taskID string) []swarm.PortConfig { return h.ports[taskID] },
		NetworkMode: func(taskID string) string { return h.modes[taskID] },
		ClusterEvents: func(ctx context.Context, send func(events.Message) error) error {
			for {
				select {
				case m := <-h.cluster:
					if err := send(m); err != nil {
						return err
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
	})
	rt := wire.NewRouter(slog.New(slog.NewTextHandler(io.Discard, nil)))
	h.api.Mount(rt)
	server := httptest.NewServer(rt)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	h.url = server.URL
	return h
}

// container makes one and starts it.
func (h *host) container(id, name string, labels map[string]string, output ...string) {
	h.t.Helper()
	spec := runtime.Container{
		ID: id, Name: name, Image: "web:1", Labels: labels, Args: output, LogPath: filepath.Join(h.dir, id+".log"),
	}
	if err := h.runtime.Create(h.t.Context(), spec); err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.runtime.Start(h.t.Context(), id); err != nil {
		h.t.Fatal(err)
	}
}

// call asks and decodes the answer into v, unless v is nil; it returns status
// and, for a refusal, its message.
func (h *host) call(method, path string, v any) (int, string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.url+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	if resp.StatusCode >= 400 {
		var refusal struct{ Message string }
		if err := json.Unmarshal(body, &refusal); err != nil {
			h.t.Fatalf("%s %s: %s: %v", method, path, body, err)
		}
		return resp.StatusCode, refusal.Message
	}
	if v != nil {
		if err := json.Unmarshal(body, v); err != nil {
			h.t.Fatalf("%s %s: %s: %v", method, path, body, err)
		}
	}
	return resp.StatusCode, ""
}

func filter(pairs ...string) string {
	f := map[string]map[string]bool{}
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = map[string]bool{pairs[i+1]: true}
	}
	raw, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	return "filters=" + url.QueryEscape(string(raw))
}

func TestPing(t *testing.T) {
	h := newHost(t)
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		req, err := http.NewRequestWithContext(t.Context(), method, h.url+"/_ping", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.Header.Get("Swarm") != "active/worker" || resp.Header.Get("Api-Version") == "" || resp.Header.Get("Ostype") != "linux" {
			t.Errorf("%s: headers are %v", method, resp.Header)
		}
	}
}

func TestVersionAndInfo(t *testing.T) {
	h := newHost(t)
	h.container(strings.Repeat("a", 64), "one", nil)
	var v system.VersionResponse
	h.call("GET", "/version", &v)
	if v.Version != "1.2" || v.APIVersion != wire.Max.String() || len(v.Components) != 2 || v.Components[1].Name != "fake" {
		t.Errorf("version is %+v", v)
	}
	var i system.Info
	h.call("GET", "/v1.44/info", &i)
	if i.Name != "host1" || i.Containers != 1 || i.ContainersRunning != 1 || i.Images != 3 || i.NCPU == 0 || i.MemTotal == 0 ||
		i.Swarm.LocalNodeState != swarm.LocalNodeStateActive {
		t.Errorf("info is %+v", i)
	}
}

func TestListContainers(t *testing.T) {
	h := newHost(t)
	one, two, three := strings.Repeat("a", 64), strings.Repeat("ab", 32), strings.Repeat("c", 64)
	h.container(one, "web.1.t1", map[string]string{"com.docker.swarm.task.id": "t1", "tier": "front"})
	h.container(two, "web.2.t2", nil)
	h.container(three, "old", nil)
	if err := h.runtime.Exit(three, 3); err != nil {
		t.Fatal(err)
	}
	tests := map[string][]string{
		"":                                 {"/web.1.t1", "/web.2.t2"},
		"?all=1":                           {"/old", "/web.1.t1", "/web.2.t2"},
		"?" + filter("name", "web.2"):      {"/web.2.t2"},
		"?" + filter("id", "aaa"):          {"/web.1.t1"},
		"?" + filter("label", "tier"):      {"/web.1.t1"},
		"?" + filter("label", "tier=back"): {},
		"?" + filter("is-task", "true"):    {"/web.1.t1"},
		"?" + filter("is-task", "false"):   {"/web.2.t2"},
		"?" + filter("status", "exited"):   {"/old"},
		"?" + filter("exited", "3"):        {"/old"},
		"?" + filter("exited", "0"):        {},
		"?" + filter("ancestor", "web:1"):  {"/web.1.t1", "/web.2.t2"},
		"?" + filter("ancestor", "db:1"):   {},
	}
	for query, want := range tests {
		var list []container.Summary
		h.call("GET", "/containers/json"+query, &list)
		got := []string{}
		for _, c := range list {
			got = append(got, c.Names[0])
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s lists %q, want %q", query, got, want)
		}
	}
	h.ports = map[string][]swarm.PortConfig{"t1": {{Protocol: network.TCP, TargetPort: 80, PublishedPort: 32768, PublishMode: swarm.PortConfigPublishModeHost}}}
	var list []container.Summary
	h.call("GET", "/containers/json?"+filter("is-task", "true"), &list)
	want := container.PortSummary{IP: netip.IPv4Unspecified(), PrivatePort: 80, PublicPort: 32768, Type: "tcp"}
	if len(list) != 1 || !slices.Equal(list[0].Ports, []container.PortSummary{want}) {
		t.Errorf("ports of the host: %+v", list)
	}
	if h.call("GET", "/containers/json?limit=2", &list); len(list) != 2 {
		t.Errorf("limit gives %d", len(list))
	}
	if status, words := h.call("GET", "/containers/json?"+filter("color", "red"), nil); status != 400 || words != "invalid filter 'color'" {
		t.Errorf("%d %s", status, words)
	}
}

func TestPhrases(t *testing.T) {
	h := newHost(t)
	tests := []struct {
		status runtime.Status
		want   string
	}{
		{runtime.Status{State: runtime.Created}, "Created"},
		{runtime.Status{State: runtime.Running, StartedAt: noon.Add(90 * time.Second)}, "Up Less than a second"},
		{runtime.Status{State: runtime.Running, StartedAt: noon}, "Up 1 minute"},
		{runtime.Status{State: runtime.Exited, ExitCode: 2, FinishedAt: noon.Add(60 * time.Second)}, "Exited (2) 30 seconds ago"},
		{runtime.Status{State: runtime.Running, StartedAt: noon.Add(-47 * time.Hour)}, "Up 47 hours"},
		{runtime.Status{State: runtime.Running, StartedAt: noon.Add(-48 * time.Hour)}, "Up 2 days"},
	}
	for _, tt := range tests {
		if got := h.api.phrase(tt.status); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestOneContainer(t *testing.T) {
	h := newHost(t)
	id := strings.Repeat("a", 64)
	h.container(id, "web.1.t1", nil)
	h.container(strings.Repeat("ab", 32), "other", nil)
	for _, ref := range []string{id, "aaa", "web.1.t1"} {
		var c container.InspectResponse
		h.call("GET", "/containers/"+url.PathEscape(ref)+"/json", &c)
		if c.ID != id || c.Name != "/web.1.t1" || c.State == nil || !c.State.Running || c.State.Pid == 0 {
			t.Errorf("%s is %+v", ref, c)
		}
	}
	tests := []struct {
		method, path, words string
		status              int
	}{
		{"GET", "/containers/nobody/json", "No such container: nobody", 404},
		{"GET", "/containers/nobody/logs?stdout=1", "No such container: nobody", 404},
		{"POST", "/containers/nobody/kill", "No such container: nobody", 404},
		{"GET", "/containers/a/json", "container a is ambiguous (2 matches found)", 400},
		{"POST", "/containers/aaa/kill?signal=NONE", "invalid signal: NONE", 400},
		{"POST", "/containers/aaa/stop?t=soon", `t="soon" is not a number`, 400},
		{"GET", "/containers/aaa/logs", "Bad parameters: you must choose at least one stream", 400},
		{"GET", "/containers/aaa/logs?stdout=1&since=soon", `since="soon" is not a time in seconds`, 400},
		{"POST", "/containers/aaa/stop?t=-1", "", 204},
		{"POST", "/containers/aaa/stop", "", 304},
		{"POST", "/containers/aaa/kill", "cannot kill container: aaa: container " + id + " is not running", 409},
		{"POST", "/containers/other/kill", "", 204},
	}
	for _, tt := range tests {
		if status, words := h.call(tt.method, tt.path, nil); status != tt.status || words != tt.words {
			t.Errorf("%s %s: %d %q, want %d %q", tt.method, tt.path, status, words, tt.status, tt.words)
		}
	}
}

func TestImages(t *testing.T) {
	h := newHost(t)
	if status, words := h.call("POST", "/images/web:1/tag?repo=shop/web&tag=9", nil); status != 201 {
		t.Fatal(status, words)
	}
	list := func(query string) (out []string) {
		var images []image.Summary
		h.call("GET", "/images/json"+query, &images)
		for _, i := range images {
			out = append(out, strings.Join(i.RepoTags, " "))
		}
		slices.Sort(out)
		return out
	}
	for query, want := range map[string][]string{
		"":                                 {"db:1", "web:1 shop/web:9", "web:2"},
		"?" + filter("reference", "web:*"): {"web:1", "web:2"},
		"?" + filter("dangling", "true"):   nil,
		"?" + filter("dangling", "false"):  {"db:1", "web:1 shop/web:9", "web:2"},
	} {
		if got := list(query); !slices.Equal(got, want) {
			t.Errorf("%s lists %q, want %q", query, got, want)
		}
	}
	var i image.InspectResponse
	h.call("GET", "/images/web:1/json", &i)
	if len(i.RepoTags) != 2 || len(i.RepoDigests) != 2 || !strings.HasPrefix(i.ID, "sha256:") || i.Config == nil {
		t.Errorf("image is %+v", i)
	}
	tests := []struct {
		method, path, words string
		status              int
	}{
		{"GET", "/images/none:1/json", "No such image: none:1", 404},
		{"DELETE", "/images/none:1", "No such image: none:1", 404},
		{"POST", "/images/create?fromSrc=-", "importing a file system as an image is not part of Shoal; use docker load", 501},
		{"GET", "/distribution/web:1/json", "the registry of web:1 is not asked: every node uses the image it has, or pulls it", 404},
		{"POST", "/images/create?fromImage=far&tag=1", "", 200},
		{"DELETE", "/images/far:1", "", 200},
	}
	for _, tt := range tests {
		if status, words := h.call(tt.method, tt.path, nil); status != tt.status || words != tt.words {
			t.Errorf("%s %s: %d %q, want %d %q", tt.method, tt.path, status, words, tt.status, tt.words)
		}
	}
	if status, words := h.call("POST", "/images/create?fromImage=near&tag=1", nil); status != 404 || !strings.Contains(words, "pull access denied for near") {
		t.Errorf("pull says %d %q", status, words)
	}
}

func TestVolumes(t *testing.T) {
	h := newHost(t)
	var list volume.ListResponse
	if h.call("GET", "/volumes", &list); len(list.Volumes) != 0 {
		t.Errorf("volumes are %+v", list)
	}
	if err := os.MkdirAll(filepath.Join(h.dir, "volumes", "data", "_data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if h.call("GET", "/volumes", &list); len(list.Volumes) != 1 || list.Volumes[0].Name != "data" || list.Volumes[0].Driver != "local" {
		t.Errorf("volumes are %+v", list)
	}
}

func TestEvents(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", h.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream := json.NewDecoder(resp.Body)
	h.cluster <- events.Message{Type: "service", Action: "create", Actor: events.Actor{ID: "s1"}, Scope: "swarm"}
	var m events.Message
	if err := stream.Decode(&m); err != nil || m.Type != "service" || m.Scope != "swarm" {
		t.Fatalf("%+v %v", m, err)
	}
	h.api.Emit("container", "start", "c1", map[string]string{"name": "web"}) // the stream listens since its first message
	if err := stream.Decode(&m); err != nil || m.Type != "container" || m.Scope != "local" || m.Time != noon.Unix()+90 {
		t.Fatalf("%+v %v", m, err)
	}
}

func TestEventsUntil(t *testing.T) {
	h := newHost(t)
	if status, words := h.call("GET", "/events?until=1", nil); status != 200 {
		t.Errorf("%d %s", status, words)
	}
	if status, words := h.call("GET", "/events?until=later", nil); status != 400 || words != `until="later" is not a time in seconds` {
		t.Errorf("%d %s", status, words)
	}
}

func TestEventFilters(t *testing.T) {
	m := events.Message{Type: "container", Action: "start", Scope: "local",
		Actor: events.Actor{ID: "abcdef", Attributes: map[string]string{"name": "web", "tier": "front"}}}
	tests := []struct {
		filters wire.Filters
		want    bool
	}{
		{nil, true},
		{wire.Filters{"type": {"container"}}, true},
		{wire.Filters{"type": {"image"}}, false},
		{wire.Filters{"event": {"stop", "start"}}, true},
		{wire.Filters{"scope": {"swarm"}}, false},
		{wire.Filters{"container": {"web"}}, true},
		{wire.Filters{"container": {"abc"}}, true},
		{wire.Filters{"container": {"b"}}, false},
		{wire.Filters{"service": {"web"}}, false},
		{wire.Filters{"daemon": {"web"}}, false},
		{wire.Filters{"label": {"tier=front"}}, true},
		{wire.Filters{"label": {"tier=back"}}, false},
	}
	for _, tt := range tests {
		if got := matches(tt.filters, m); got != tt.want {
			t.Errorf("%v: %v", tt.filters, got)
		}
	}
}

func TestSlowListenersLoseEvents(t *testing.T) {
	b := newBroadcaster()
	ch, stop := b.listen()
	for range eventBuffer + 10 {
		b.send(events.Message{}) // never blocks
	}
	if len(ch) != eventBuffer {
		t.Errorf("kept %d", len(ch))
	}
	stop()
	if len(b.listeners) != 0 {
		t.Error("a listener that left is still listed")
	}
}

// TestNetworkMode is told of tasks; what is no task is in nobody's network.
func TestNetworkMode(t *testing.T) {
	h := newHost(t)
	h.modes = map[string]string{"t1": "host"}
	h.container("c1", "agent.n1.t1", map[string]string{"com.docker.swarm.task.id": "t1"})
	h.container("c2", "web.1.t2", map[string]string{"com.docker.swarm.task.id": "t2"})
	h.container("c3", "other", nil)
	for id, want := range map[string]container.NetworkMode{"c1": "host", "c2": "default", "c3": "default"} {
		var c container.InspectResponse
		if code, text := h.call(http.MethodGet, "/containers/"+id+"/json", &c); code != http.StatusOK || c.HostConfig.NetworkMode != want {
			t.Errorf("%s: %d %s, mode %q", id, code, text, c.HostConfig.NetworkMode)
		}
	}
}
