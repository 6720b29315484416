package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newRouter() *Router { return NewRouter(slog.New(slog.NewTextHandler(io.Discard, nil))) }

func ask(rt http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	rt.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestRouting(t *testing.T) {
	rt := newRouter()
	tell := func(name string) Handler {
		return func(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
			fmt.Fprint(w, name, " ", VersionOf(r), " ", vars)
			return nil
		}
	}
	rt.Handle("GET", "/things/{id}", tell("thing"))
	rt.Handle("GET", "/things/create", tell("create"))
	rt.Handle("GET", "/images/{name...}/json", tell("image"))
	rt.Handle("GET", "/images/{name...}", tell("any"))
	rt.Handle("GET", "/v1", tell("v1"))
	for _, c := range []struct {
		path string
		code int
		body string
	}{
		{"/things/a", 200, "thing 1.47 map[id:a]"},
		{"/v1.41/things/a", 200, "thing 1.41 map[id:a]"},
		{"/v1.24/things/create", 200, "create 1.24 map[]"},
		{"/images/a/b:c/json", 200, "image 1.47 map[name:a/b:c]"},
		{"/images/a/b", 200, "any 1.47 map[name:a/b]"},
		{"/v1", 200, "v1 1.47 map[]"},
		{"/things/a/b", 404, `{"message":"page not found"}` + "\n"},
		{"/things/", 404, `{"message":"page not found"}` + "\n"},
		{"/v1.x/things/a", 404, `{"message":"page not found"}` + "\n"},
		{"/", 404, `{"message":"page not found"}` + "\n"},
		{"/v1.48/things/a", 400, `{"message":"client version 1.48 is too new. Maximum supported API version is 1.47"}` + "\n"},
		{"/v2.0/things/a", 400, `{"message":"client version 2.0 is too new. Maximum supported API version is 1.47"}` + "\n"},
		{"/v1.23/things/a", 400, `{"message":"client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"}` + "\n"},
	} {
		w := ask(rt, "GET", c.path)
		if w.Code != c.code || w.Body.String() != c.body {
			t.Errorf("%s: %d %q, want %d %q", c.path, w.Code, w.Body, c.code, c.body)
		}
		if w.Header().Get("Api-Version") != "1.47" || w.Header().Get("Server") == "" {
			t.Errorf("%s: headers %v", c.path, w.Header())
		}
	}
	if w := ask(rt, "POST", "/things/a"); w.Code != 404 {
		t.Errorf("wrong method: %d", w.Code)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{api.Errorf(api.NotFound, "x"), 404}, {api.Errorf(api.Invalid, "x"), 400}, {api.Errorf(api.Conflict, "x"), 409},
		{api.Errorf(api.Forbidden, "x"), 403}, {api.Errorf(api.Unavailable, "x"), 503}, {api.Errorf(api.Unimplemented, "x"), 501},
		{api.Errorf(api.OutOfSequence, "x"), 500}, {api.Errorf(api.Internal, "x"), 500}, {errors.New("x"), 500},
		{Statusf(401, "x"), 401}, {&api.Error{Kind: "odd", Message: "x"}, 500},
	} {
		w := httptest.NewRecorder()
		WriteError(w, c.err)
		if w.Code != c.code || w.Body.String() != `{"message":"x"}`+"\n" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%v: %d %q %v", c.err, w.Code, w.Body, w.Header())
		}
	}
	w := httptest.NewRecorder()
	if WriteError(w, Statusf(304, "as it was")); w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("304: %d %q", w.Code, w.Body)
	}
}

func TestErrorAfterTheAnswerBegan(t *testing.T) {
	rt := newRouter()
	rt.Handle("GET", "/half", func(w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
		io.WriteString(w, "half")
		return errors.New("broken")
	})
	if w := ask(rt, "GET", "/half"); w.Code != 200 || w.Body.String() != "half" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

func TestPing(t *testing.T) {
	for _, c := range []struct {
		info swarm.Info
		want string
	}{
		{swarm.Info{LocalNodeState: "inactive"}, "inactive"}, {swarm.Info{LocalNodeState: "locked"}, "locked"},
		{swarm.Info{LocalNodeState: "active"}, "active/worker"}, {swarm.Info{LocalNodeState: "active", ControlAvailable: true}, "active/manager"},
	} {
		rt := newRouter()
		HandlePing(rt, func() swarm.Info { return c.info })
		w, head := ask(rt, "GET", "/v1.41/_ping"), ask(rt, "HEAD", "/_ping")
		if w.Body.String() != "OK" || head.Body.Len() != 0 || head.Code != 200 {
			t.Errorf("bodies %q and %q", w.Body, head.Body)
		}
		if got := head.Header().Get("Swarm"); got != c.want || w.Header().Get("Swarm") != c.want || w.Header().Get("Builder-Version") != "1" {
			t.Errorf("Swarm: %s, want %s", got, c.want)
		}
	}
}

func TestReadJSON(t *testing.T) {
	for _, c := range []struct{ kind, body, want string }{
		{"application/json", `{"A":1,"unknown":2}`, ""},
		{"application/json; charset=utf-8", ` {"A":1} `, ""},
		{"text/plain", `{}`, "unsupported Content-Type header (text/plain): must be 'application/json'"},
		{"application/json", ``, "invalid JSON: got EOF while reading request body"},
		{"application/json", `{"A":"x"}`, "invalid JSON: json: cannot unmarshal string"},
		{"application/json", `{} x`, "unexpected content after JSON"},
		{"application/json", `"` + strings.Repeat("a", MaxBody) + `"`, "request body is larger than 4194304 bytes"},
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.kind)
		var v struct{ A int }
		err := ReadJSON(r, &v)
		if got := fmt.Sprint(err); c.want == "" && err != nil || !strings.HasPrefix(got, c.want) && c.want != "" {
			t.Errorf("%.20q: %v, want %s", c.body, err, c.want)
		}
	}
}

func TestFilters(t *testing.T) {
	parse := func(text string) (Filters, error) {
		return ParseFilters(httptest.NewRequest("GET", "/?filters="+url.QueryEscape(text), nil), "name", "label", "dangling")
	}
	f, err := parse(`{"name":{"b":true,"a":true},"label":["x=1","y"]}`)
	if err != nil || !slices.Equal(f["name"], []string{"a", "b"}) {
		t.Fatalf("%v %v", f, err)
	}
	labels := map[string]string{"x": "1", "y": "2"}
	if !f.Exact("name", "a") || f.Exact("name", "ab") || !f.Prefix("name", "ab") || f.Prefix("name", "cab") || !f.Contains("name", "cab") ||
		!f.Labels("label", labels) || f.Labels("label", map[string]string{"x": "1"}) || !f.Exact("other", "z") || !Filters(nil).Labels("l", nil) {
		t.Error("a filter lets the wrong thing through")
	}
	for text, want := range map[string]string{
		`{"foo":{"a":true}}`: "invalid filter 'foo'", `x`: "invalid filter", `{"name":3}`: "invalid filter 'name'", `[]`: "invalid filter",
	} {
		if _, err := parse(text); fmt.Sprint(err) != want || api.KindOf(err) != api.Invalid {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	f, _ = parse(`{"dangling":["maybe"]}`)
	if _, _, err := f.Bool("dangling"); err == nil || err.Error() != "invalid filter 'dangling=[maybe]'" {
		t.Errorf("dangling: %v", err)
	}
}

func FuzzFilters(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"a":{"b":true}}`, `{"a":["b","b"]}`, `{"a":null}`, `[`, `{"a":{"b":1}}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := decodeFilters(text)
		if err != nil {
			if api.KindOf(err) != api.Invalid {
				t.Fatalf("%q: kind of %v", text, err)
			}
			return
		}
		for key, values := range got {
			if !slices.IsSorted(values) || len(values) != len(slices.Compact(slices.Clone(values))) {
				t.Fatalf("%q: %s: %v", text, key, values)
			}
			for _, v := range values {
				if !got.Exact(key, v) || !got.Prefix(key, v) || !got.Contains(key, v) {
					t.Fatalf("%q does not match itself", v)
				}
			}
		}
	})
}

func FuzzVersion(f *testing.F) {
	for _, seed := range []string{"1.41", "1.", ".1", "01.1", "1.41.2", "-1.2", "99999.1", "1.٣"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseVersion(text)
		if err == nil && v.String() != text {
			t.Fatalf("%q reads as %s", text, v)
		}
		path, at, err := splitVersion("/v" + text + "/x")
		if err == nil && (at.Less(Min) || Max.Less(at)) {
			t.Fatalf("%q is served as %s", path, at)
		}
	})
}

// readFrames is the client's side of the frame format.
func readFrames(t *testing.T, r io.Reader) map[Stream]string {
	t.Helper()
	got := map[Stream]string{}
	for {
		var head [frameHead]byte
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return got
		} else if err != nil || head[1]|head[2]|head[3] != 0 {
			t.Fatalf("head %v: %v", head, err)
		}
		body := make([]byte, binary.BigEndian.Uint32(head[4:]))
		if _, err := io.ReadFull(r, body); err != nil {
			t.Fatal(err)
		}
		got[Stream(head[0])] += string(body)
	}
}

func TestFrames(t *testing.T) {
	var out bytes.Buffer
	f := NewFrames(&out)
	long := strings.Repeat("x", maxFrame+7)
	var wg sync.WaitGroup
	for s, text := range map[Stream]string{Stdout: long, Stderr: "err", SystemErr: "late"} {
		wg.Go(func() { io.WriteString(f.To(s), text) })
	}
	wg.Wait()
	got := readFrames(t, &out)
	if got[Stdout] != long || got[Stderr] != "err" || got[SystemErr] != "late" {
		t.Errorf("lengths %d %q %q", len(got[Stdout]), got[Stderr], got[SystemErr])
	}
}

func TestJSONStreamIsSentAtOnce(t *testing.T) {
	rt := newRouter()
	next := make(chan int)
	rt.Handle("GET", "/events", func(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
		s, err := NewJSONStream(w)
		if err != nil {
			return err
		}
		for n := range next {
			if err := s.Send(n); err != nil {
				return err
			}
		}
		return nil
	})
	srv := httptest.NewServer(rt)
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + "/events") // returns with the head, before any value
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for want := range 3 {
		next <- want
		var got int
		if err := dec.Decode(&got); err != nil || got != want {
			t.Fatalf("%d %v", got, err)
		}
	}
	close(next)
}

func TestHijack(t *testing.T) {
	for _, c := range []struct {
		path, upgrade, status, kind string
		tty                         bool
	}{
		{"/echo", "tcp", "101 UPGRADED", MultiplexedStream, false},
		{"/echo", "tcp", "101 UPGRADED", RawStream, true},
		{"/v1.41/echo", "tcp", "101 UPGRADED", RawStream, false},
		{"/echo", "", "200 OK", RawStream, false},
	} {
		rt := newRouter()
		rt.Handle("POST", "/echo", func(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
			conn, err := Hijack(w, r, c.tty)
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := io.Copy(conn, conn); err != nil { // until the client half-closes
				return err
			}
			return conn.CloseWrite()
		})
		srv := httptest.NewServer(rt)
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		// The first bytes come in one packet with the head, so the server has them buffered.
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nhel", c.path, c.upgrade)
		io.WriteString(conn, "lo")
		conn.(*net.TCPConn).CloseWrite()
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.Status != c.status || resp.Header.Get("Content-Type") != c.kind {
			t.Errorf("%+v: %v %v", c, resp, err)
		}
		rest, _ := io.ReadAll(in)
		if string(rest) != "hello" {
			t.Errorf("%+v: echo %q", c, rest)
		}
		conn.Close()
		srv.Close()
	}
}
