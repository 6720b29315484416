package engineapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/runtime"
	"shoal/node/standalone"
)

func asked(change func(*container.CreateRequest)) container.CreateRequest {
	r := container.CreateRequest{Config: &container.Config{Image: "web:1"}, HostConfig: &container.HostConfig{NetworkMode: "open"}}
	change(&r)
	return r
}

func TestWish(t *testing.T) {
	seconds, pids := 3, int64(7)
	w, err := wishOf("/box", asked(func(r *container.CreateRequest) {
		r.Entrypoint, r.Cmd, r.Env, r.User, r.WorkingDir, r.StopTimeout = []string{"/p"}, []string{"a"}, []string{"A=1"}, "anna", "/w", &seconds
		r.Tty, r.OpenStdin, r.StdinOnce, r.Volumes = true, true, true, map[string]struct{}{"/anon": {}}
		r.HostConfig.AutoRemove, r.HostConfig.Memory, r.HostConfig.NanoCPUs, r.HostConfig.PidsLimit = true, 1<<26, 5e8, &pids
		r.HostConfig.Binds = []string{"/host:/b:ro,rslave", "data:/v"}
		r.HostConfig.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Target: "/t"}}
		r.HostConfig.ExtraHosts, r.HostConfig.CapDrop, r.HostConfig.ReadonlyRootfs = []string{"far:192.0.2.1"}, []string{"ALL"}, true
		r.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"open": {Aliases: []string{"shop"}}, "also": nil}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	s := w.Spec
	if w.Name != "box" || !w.AutoRemove || !w.StdinOnce || !s.TTY || !s.OpenStdin || s.User != "anna" || s.Dir != "/w" || !s.ReadOnly ||
		!slices.Equal(s.Command, []string{"/p"}) || !slices.Equal(s.Args, []string{"a"}) || *s.StopGracePeriod != 3*time.Second ||
		!slices.Equal(s.Hosts, []string{"192.0.2.1 far"}) || !slices.Equal(s.CapabilityDrop, []string{"ALL"}) {
		t.Errorf("wish %+v", w)
	}
	if l := w.Limits.Limits; l.MemoryBytes != 1<<26 || l.NanoCPUs != 5e8 || l.Pids != 7 {
		t.Errorf("limits %+v", l)
	}
	if len(w.Networks) != 2 || w.Networks[0].Target != "open" || !slices.Equal(w.Networks[0].Aliases, []string{"shop"}) || w.Networks[1].Target != "also" {
		t.Errorf("networks %+v", w.Networks)
	}
	var mounts []string
	for _, m := range s.Mounts {
		mounts = append(mounts, fmt.Sprintf("%s %s %s %v", m.Type, m.Source, m.Target, m.ReadOnly))
	}
	if want := []string{"tmpfs  /t false", "bind /host /b true", "volume data /v false", "volume  /anon false"}; !slices.Equal(mounts, want) {
		t.Errorf("mounts %q", mounts)
	}
	cleared, err := wishOf("", asked(func(r *container.CreateRequest) { r.Entrypoint, r.Cmd = []string{""}, []string{"sh", "-c"} }))
	if err != nil || !slices.Equal(cleared.Spec.Command, []string{"sh", "-c"}) || cleared.Spec.Args != nil {
		t.Errorf("without the image's entry point: %+v %v", cleared.Spec, err)
	}
}

func TestWishRefusals(t *testing.T) {
	for text, change := range map[string]func(*container.CreateRequest){
		"config cannot be empty":     func(r *container.CreateRequest) { r.Image = "" },
		"name one with --network":    func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "default" },
		"attachable overlay network": func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "bridge" },
		"would be the node's own": func(r *container.CreateRequest) {
			r.HostConfig.NetworkMode, r.HostConfig.Sysctls = "host", map[string]string{"net.core.somaxconn": "9"}
		},
		"the network of another one":  func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "container:x" },
		"docker service create -p":    func(r *container.CreateRequest) { r.HostConfig.PublishAllPorts = true },
		"is never restarted":          func(r *container.CreateRequest) { r.HostConfig.RestartPolicy.Name = "always" },
		"--cap-add":                   func(r *container.CreateRequest) { r.HostConfig.Privileged = true },
		"reach each other by name":    func(r *container.CreateRequest) { r.HostConfig.Links = []string{"a:b"} },
		"namespaces of its own":       func(r *container.CreateRequest) { r.HostConfig.PidMode = "host" },
		"only --cpus":                 func(r *container.CreateRequest) { r.HostConfig.CPUShares = 5 },
		"only --memory":               func(r *container.CreateRequest) { r.HostConfig.MemorySwap = 5 },
		"health checks need":          func(r *container.CreateRequest) { r.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "x"}} },
		"use --mount type=tmpfs":      func(r *container.CreateRequest) { r.HostConfig.Tmpfs = map[string]string{"/t": "size=1m"} },
		"mount path must be absolute": func(r *container.CreateRequest) { r.HostConfig.Binds = []string{"data:v"} },
		"invalid mode: odd":           func(r *container.CreateRequest) { r.HostConfig.Binds = []string{"data:/v:odd"} },
		"invalid volume":              func(r *container.CreateRequest) { r.HostConfig.Binds = []string{"data"} },
		"bad format for add-host":     func(r *container.CreateRequest) { r.HostConfig.ExtraHosts = []string{"far"} },
		"no command specified":        func(r *container.CreateRequest) { r.Entrypoint = []string{""} },
		"given by the managers": func(r *container.CreateRequest) {
			r.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
				"open": {IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.0.1.9")}},
			}}
		},
	} {
		if _, err := wishOf("", asked(change)); api.KindOf(err) != api.Invalid || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// managers put containers on the network open, and run them at once as an agent would.
type managers struct {
	h     *host
	store func() *standalone.Store
}

func (m managers) Attach(ctx context.Context, r api.AttachRequest) (reply api.AttachReply, err error) {
	for _, n := range r.Networks {
		if own := api.NodeNetwork(n.Target); own != nil {
			reply.Networks = append(reply.Networks, api.AttachedNetwork{ID: own.ID, Name: own.Spec.Name})
			continue
		}
		if n.Target != "open" && n.Target != "id-open" {
			return reply, api.Errorf(api.Forbidden, "network %s is not manually attachable", n.Target)
		}
		reply.Networks = append(reply.Networks, api.AttachedNetwork{ID: "id-open", Name: "open"})
	}
	if r.TaskID == "" {
		return reply, nil
	}
	task := &api.Task{}
	task.ID, task.Spec.NetworkAttachmentSpec = r.TaskID, &swarm.NetworkAttachmentSpec{ContainerID: r.ContainerID}
	at := swarm.NetworkAttachment{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.1.9/24")}}
	at.Network.ID = "id-open"
	task.NetworksAttachments = []swarm.NetworkAttachment{at}
	spec, _, _ := m.store().Wish(task)
	err = m.h.runtime.Create(ctx, runtime.Container{
		ID: r.ContainerID, Name: r.Name, Image: spec.Image, Args: spec.Args, Labels: spec.Labels, OpenStdin: spec.OpenStdin, TTY: spec.TTY, LogPath: filepath.Join(m.h.dir, r.ContainerID),
	})
	if err != nil {
		return reply, err
	}
	m.store().Made(ctx, r.ContainerID)
	if _, err := m.h.runtime.Start(ctx, r.ContainerID); err != nil {
		return reply, err
	}
	m.store().Moved(r.TaskID, swarm.TaskStatus{State: swarm.TaskStateRunning})
	return reply, nil
}

func (managers) Detach(context.Context, string) error { return nil }

// withContainers gives the host containers of its own.
func withContainers(t *testing.T) *host {
	h := newHost(t)
	var store *standalone.Store
	store, err := standalone.Open(standalone.Config{
		Dir: filepath.Join(h.dir, "standalone"), VolumeDir: VolumeDir(h.dir), Runtime: h.runtime, Now: time.Now,
		Cluster: func() standalone.Cluster { return managers{h, func() *standalone.Store { return store }} },
		Emit: func(a events.Action, id string, at map[string]string) {
			h.api.Emit(events.ContainerEventType, a, id, at)
		},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.api.cfg.Standalone = store
	t.Cleanup(store.Close)
	return h
}

// post sends a body and returns status and answer.
func (h *host) post(path string, body any) (int, string) {
	h.t.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		h.t.Fatal(err)
	}
	res, err := http.Post(h.url+path, "application/json", bytes.NewReader(raw))
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}

func (h *host) made(name string, change func(*container.CreateRequest)) string {
	h.t.Helper()
	code, answer := h.post("/containers/create?name="+name, asked(change))
	var made container.CreateResponse
	if err := json.Unmarshal([]byte(answer), &made); err != nil || code != http.StatusCreated {
		h.t.Fatalf("create: %d %s", code, answer)
	}
	return made.ID
}

func TestInspectStandalone(t *testing.T) {
	h := withContainers(t)
	h.made("box", func(r *container.CreateRequest) {
		r.Hostname, r.Cmd, r.Labels = "own", []string{"one", "two"}, map[string]string{"team": "blue"}
		r.NetworkingConfig = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{"open": {Aliases: []string{"shop"}}}}
	})
	var c container.InspectResponse
	h.call(http.MethodGet, "/containers/box/json", &c)
	if c.State.Status != "created" || c.Config.Hostname != "own" || c.HostConfig.NetworkMode != "open" {
		t.Errorf("created: %+v %+v", c.State, c.Config)
	}
	if code, answer := h.post("/containers/box/start", nil); code != http.StatusNoContent {
		t.Fatalf("start: %d %s", code, answer)
	}
	if code, _ := h.post("/containers/box/start", nil); code != http.StatusNotModified {
		t.Errorf("a second start: %d", code)
	}
	h.call(http.MethodGet, "/containers/box/json", &c)
	e := c.NetworkSettings.Networks["open"]
	if !c.State.Running || e.IPAddress.String() != "10.0.1.9" || e.IPPrefixLen != 24 || e.MacAddress.String() != "02:42:0a:00:01:09" ||
		!slices.Equal(e.DNSNames, []string{"box", "shop", c.ID[:12], "own"}) {
		t.Errorf("running: %+v %+v", c.State, e)
	}
	var list []container.Summary
	h.call(http.MethodGet, "/containers/json?all=1", &list)
	if len(list) != 1 || list[0].Names[0] != "/box" || list[0].Labels["team"] != "blue" || !strings.HasSuffix(list[0].Command, "one two") {
		t.Errorf("listed %+v", list)
	}
}

func TestStandaloneRoutes(t *testing.T) {
	h := withContainers(t)
	h.container("aaaa", "web.1.x", map[string]string{"com.docker.swarm.task.id": "x", "com.docker.swarm.service.name": "web"}, "line")
	if code, answer := h.post("/containers/create", asked(func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "shut" })); code != http.StatusForbidden {
		t.Errorf("not attachable: %d %s", code, answer)
	}
	id := h.made("box", func(*container.CreateRequest) {})
	if code, _ := h.call(http.MethodDelete, "/containers/"+id[:5], nil); code != http.StatusNoContent {
		t.Errorf("a created one is removed: %d", code)
	}
	h.made("box", func(*container.CreateRequest) {})
	h.post("/containers/box/start", nil)
	for _, c := range []struct {
		method, path string
		code         int
		text         string
	}{
		{http.MethodDelete, "/containers/box", http.StatusConflict, "stop the container before removing"},
		{http.MethodDelete, "/containers/aaaa?force=1", http.StatusConflict, "task x of service web"},
		{http.MethodPost, "/containers/aaaa/start", http.StatusConflict, "change the service"},
		{http.MethodDelete, "/containers/nobody", http.StatusNotFound, "No such container: nobody"},
		{http.MethodPost, "/containers/box/wait?condition=odd", http.StatusBadRequest, "invalid condition"},
		{http.MethodPost, "/containers/box/resize?h=x&w=1", http.StatusBadRequest, "size of a terminal"},
		{http.MethodPost, "/containers/box/attach?logs=1&stream=1", http.StatusBadRequest, "docker logs"},
		{http.MethodPost, "/containers/box/attach", http.StatusBadRequest, "docker logs"},
	} {
		if code, message := h.call(c.method, c.path, nil); code != c.code || !strings.Contains(message, c.text) {
			t.Errorf("%s %s: %d %s", c.method, c.path, code, message)
		}
	}
	if code, _ := h.post("/containers/box/resize?h=25&w=80", nil); code != http.StatusOK {
		t.Errorf("resize: %d", code)
	}
	if code, _ := h.call(http.MethodDelete, "/containers/box?force=1&v=1", nil); code != http.StatusNoContent {
		t.Errorf("forced: %d", code)
	}
}

// stream is a hijacked connection.
type stream struct {
	net.Conn
	in *bufio.Reader
}

func (h *host) attach(id, query string) (*stream, *http.Response) {
	h.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST /v1.47/containers/%s/attach?%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", id, query)
	s := &stream{conn, bufio.NewReader(conn)}
	res, err := http.ReadResponse(s.in, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return s, res
}

// frame reads one frame of the multiplexed form.
func (s *stream) frame() (byte, string, error) {
	var head [8]byte
	if _, err := io.ReadFull(s.in, head[:]); err != nil {
		return 0, "", err
	}
	text := make([]byte, binary.BigEndian.Uint32(head[4:]))
	_, err := io.ReadFull(s.in, text)
	return head[0], string(text), err
}

// What docker run does: make, attach, wait, start; and the end of the client's input
// is the end of the container's.
func TestAttach(t *testing.T) {
	h := withContainers(t)
	id := h.made("box", func(r *container.CreateRequest) {
		r.Cmd, r.OpenStdin, r.StdinOnce, r.HostConfig.AutoRemove = []string{"hello"}, true, true, true
	})
	s, res := h.attach(id, "stream=1&stdin=1&stdout=1&stderr=1")
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Content-Type") != "application/vnd.docker.multiplexed-stream" {
		t.Fatalf("answer %s %v", res.Status, res.Header)
	}
	// The CLI starts it once the wait has begun, which the answer's header tells.
	waiting, err := http.Post(h.url+"/containers/box/wait?condition=removed", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Body.Close()
	waited := make(chan string, 1)
	go func() {
		answer, err := io.ReadAll(waiting.Body)
		if err != nil {
			answer = []byte(err.Error())
		}
		waited <- string(answer)
	}()
	if code, answer := h.post("/containers/box/start", nil); code != http.StatusNoContent {
		t.Fatalf("start: %d %s", code, answer)
	}
	if kind, text, err := s.frame(); err != nil || kind != 1 || text != "hello\n" {
		t.Errorf("heard %d %q %v", kind, text, err)
	}
	if err := s.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.frame(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	select {
	case answer := <-waited:
		if !strings.Contains(answer, `"StatusCode":0`) {
			t.Errorf("waited for %s", answer)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it is never removed")
	}
}

// A client of docker run --rm that goes before the start leaves nothing.
func TestClientLeavesBeforeStart(t *testing.T) {
	h := withContainers(t)
	id := h.made("box", func(r *container.CreateRequest) { r.HostConfig.AutoRemove = true })
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/containers/box/wait?condition=removed", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	res.Body.Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, known := h.api.record(id); !known {
			return
		}
		if time.Now().After(end) {
			t.Fatal("it is still there")
		}
	}
}

// TestInspectOnTheHost has the node's name, and neither address nor names there.
func TestInspectOnTheHost(t *testing.T) {
	h := withContainers(t)
	h.made("tool", func(r *container.CreateRequest) { r.HostConfig.NetworkMode = "host" })
	var c container.InspectResponse
	h.call(http.MethodGet, "/containers/tool/json", &c)
	e := c.NetworkSettings.Networks["host"]
	if c.Config.Hostname != "host1" || c.HostConfig.NetworkMode != "host" || e == nil || e.NetworkID != api.NodeNetworkID("host") || e.DNSNames != nil {
		t.Errorf("%+v %+v", c.Config, e)
	}
}
