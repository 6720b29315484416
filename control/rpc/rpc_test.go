package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/control/ca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newRoot() *ca.Root { return must(ca.NewRoot(time.Now())) }

func source(root *ca.Root, node string, role swarm.NodeRole) *ca.Source {
	return ca.NewSource(credentials(root, node, role))
}

func credentials(root *ca.Root, node string, role swarm.NodeRole) *ca.Credentials {
	csr, key, err := ca.NewRequest()
	if err != nil {
		panic(err)
	}
	cert := must(root.Issue(csr, ca.Identity{NodeID: node, Role: role, ClusterID: "c1"}, time.Now(), 0))
	return must(ca.NewCredentials(key, cert, root.CertPEM()))
}

// serve starts a control port with the routes.
func serveMux(t *testing.T, src *ca.Source, mux *Mux) *Server {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	s := New(Config{Listener: l, Advertise: l.Addr().String(), Source: src, Handler: mux})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func client(t *testing.T, src *ca.Source) *Client {
	c := NewClient(src, nil)
	t.Cleanup(c.Close)
	return c
}

const mgr, wrk = swarm.NodeRoleManager, swarm.NodeRoleWorker

type echo struct{ Text, Peer string }

func routes(admit func(ca.Identity) error) *Mux {
	mux := NewMux(admit)
	answer := func(w http.ResponseWriter, r *http.Request) error {
		var in echo
		if err := ReadJSON(r, &in); err != nil {
			return err
		}
		peer, _ := PeerFrom(r.Context())
		return WriteJSON(w, echo{in.Text, peer.NodeID})
	}
	mux.Handle("POST /managers", answer, mgr)
	mux.Handle("POST /all", answer, mgr, wrk)
	mux.Open("POST /open", answer)
	return mux
}

func TestRolesDecide(t *testing.T) {
	root := newRoot()
	s := serveMux(t, source(root, "m1", mgr), routes(nil))
	manager, worker := client(t, source(root, "m2", mgr)), client(t, source(root, "w1", wrk))
	joining := NewJoinClient(ca.NewToken(root.Cert), nil)
	defer joining.Close()
	stranger := client(t, source(newRoot(), "m2", mgr))
	for _, c := range []struct {
		name   string
		client *Client
		path   string
		peer   string
		kind   api.ErrorKind
		words  string
	}{
		{"manager", manager, "/managers", "m2", "", ""},
		{"manager", manager, "/all", "m2", "", ""},
		{"worker", worker, "/all", "w1", "", ""},
		{"worker", worker, "/managers", "", api.Forbidden, "needs a manager, node w1 is a worker"},
		{"joining", joining, "/all", "", api.Forbidden, "needs the certificate of a manager or worker"},
		{"joining", joining, "/open", "", "", ""},
		{"worker", worker, "/nowhere", "", api.NotFound, "no route POST /nowhere"},
		{"stranger", stranger, "/open", "", api.Unavailable, "unknown authority"},
	} {
		var out echo
		err := c.client.Call(t.Context(), s.Addr().String(), "POST", c.path, echo{Text: "hi"}, &out)
		if c.kind == "" && (err != nil || out != (echo{"hi", c.peer})) {
			t.Errorf("%s %s: %+v, %v", c.name, c.path, out, err)
		}
		if c.kind != "" && (err == nil || api.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s %s: %v of kind %s", c.name, c.path, err, api.KindOf(err))
		}
	}
}

func TestClientRefusesAWorkerAsServer(t *testing.T) {
	root := newRoot()
	s := serveMux(t, source(root, "w2", wrk), routes(nil))
	err := client(t, source(root, "w1", wrk)).Call(t.Context(), s.Addr().String(), "POST", "/all", echo{}, nil)
	if err == nil || !strings.Contains(err.Error(), "want a manager") {
		t.Fatal(err)
	}
}

func TestAdmitRefuses(t *testing.T) {
	root := newRoot()
	s := serveMux(t, source(root, "m1", mgr), routes(func(id ca.Identity) error {
		return api.Errorf(api.Forbidden, "node %s was removed", id.NodeID)
	}))
	err := client(t, source(root, "w1", wrk)).Call(t.Context(), s.Addr().String(), "POST", "/all", echo{}, nil)
	if api.KindOf(err) != api.Forbidden || err.Error() != "node w1 was removed" {
		t.Fatal(err)
	}
}

func TestADemotedManagerIsAWorker(t *testing.T) {
	root := newRoot()
	s := serveMux(t, source(root, "m1", mgr), routes(func(id ca.Identity) error {
		if id.Role == mgr {
			return api.Errorf(api.Forbidden, "node %s is no longer a manager", id.NodeID)
		}
		return nil
	}))
	demoted := client(t, source(root, "m2", mgr))
	if err := demoted.Call(t.Context(), s.Addr().String(), "POST", "/managers", echo{}, nil); api.KindOf(err) != api.Forbidden {
		t.Errorf("as a manager: %v", err)
	}
	if err := demoted.Call(t.Context(), s.Addr().String(), "POST", "/all", echo{}, nil); err != nil {
		t.Errorf("as a worker: %v", err)
	}
}

func TestErrorsSurviveTheWay(t *testing.T) {
	root := newRoot()
	kinds := []api.ErrorKind{api.NotFound, api.Invalid, api.Conflict, api.Forbidden, api.Unavailable, api.Unimplemented, api.OutOfSequence, api.Internal}
	mux := NewMux(nil)
	for _, kind := range kinds {
		mux.Handle("GET /"+string(kind), func(http.ResponseWriter, *http.Request) error {
			return fmt.Errorf("outer: %w", api.Errorf(kind, "text of %s", kind))
		}, mgr)
	}
	mux.Handle("GET /plain", func(http.ResponseWriter, *http.Request) error { return errors.New("plain") }, mgr)
	mux.Handle("GET /leader", func(http.ResponseWriter, *http.Request) error { return &NotLeaderError{"1.2.3.4:5"} }, mgr)
	mux.Handle("GET /leaderless", func(http.ResponseWriter, *http.Request) error { return &NotLeaderError{} }, mgr)
	s := serveMux(t, source(root, "m1", mgr), mux)
	c := client(t, source(root, "m2", mgr))
	call := func(path string) error { return c.Call(t.Context(), s.Addr().String(), "GET", path, nil, nil) }
	for _, kind := range kinds {
		err := call("/" + string(kind))
		if api.KindOf(err) != kind || err.Error() != "outer: text of "+string(kind) {
			t.Errorf("%s arrived as %s %v", kind, api.KindOf(err), err)
		}
	}
	if err := call("/plain"); api.KindOf(err) != api.Internal || err.Error() != "plain" {
		t.Errorf("plain: %v", err)
	}
	for path, leader := range map[string]string{"/leader": "1.2.3.4:5", "/leaderless": ""} {
		err := call(path)
		var notLeader *NotLeaderError
		if !errors.As(err, &notLeader) || notLeader.Leader != leader || api.KindOf(err) != api.Unavailable {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	root := newRoot()
	s := serveMux(t, source(root, "m1", mgr), routes(nil))
	joining := NewJoinClient(ca.NewToken(root.Cert), nil)
	defer joining.Close()
	err := joining.Call(t.Context(), s.Addr().String(), "POST", "/open", echo{Text: strings.Repeat("x", maxOpenBody)}, nil)
	if api.KindOf(err) != api.Invalid && api.KindOf(err) != api.Unavailable {
		t.Fatal(err)
	}
	if err := joining.Call(t.Context(), s.Addr().String(), "POST", "/open", []int{1}, nil); api.KindOf(err) != api.Invalid {
		t.Fatal(err)
	}
}

func TestStreams(t *testing.T) {
	root := newRoot()
	next := make(chan int)
	mux := NewMux(nil)
	mux.Handle("POST /lines", func(w http.ResponseWriter, r *http.Request) error {
		lines, err := NewLines(w)
		if err != nil {
			return err
		}
		for {
			select {
			case n, ok := <-next:
				switch {
				case !ok:
					return nil
				case n < 0:
					return errors.New("broken")
				}
				if err := lines.Write(n); err != nil {
					return err
				}
			case <-r.Context().Done():
				return r.Context().Err()
			}
		}
	}, wrk)
	s := serveMux(t, source(root, "m1", mgr), mux)
	c := client(t, source(root, "w1", wrk))
	open := func() *Stream { return must(c.Stream(t.Context(), s.Addr().String(), "/lines", nil)) }
	stream := open()
	for i := range 100 { // each line arrives before the next is written
		next <- i
		var got int
		if err := stream.Next(&got); err != nil || got != i {
			t.Fatal(got, err)
		}
	}
	next <- -1
	if err := stream.Next(new(int)); api.KindOf(err) != api.Unavailable || errors.Is(err, io.EOF) {
		t.Errorf("a broken stream ends with %v", err)
	}
	stream.Close()
	stream = open()
	close(next)
	if err := stream.Next(new(int)); err != io.EOF {
		t.Errorf("a finished stream ends with %v", err)
	}
	stream.Close()
}

func TestCloseEndsStreams(t *testing.T) {
	root := newRoot()
	mux := NewMux(nil)
	mux.Handle("POST /lines", func(w http.ResponseWriter, r *http.Request) error {
		if _, err := NewLines(w); err != nil {
			return err
		}
		<-r.Context().Done()
		return nil
	}, wrk)
	for name, end := range map[string]func(*Server, *Client){
		"server": func(s *Server, _ *Client) { s.Close() },
		"client": func(_ *Server, c *Client) { c.Close() },
	} {
		s := serveMux(t, source(root, "m1", mgr), mux)
		c := client(t, source(root, "w1", wrk))
		stream := must(c.Stream(t.Context(), s.Addr().String(), "/lines", nil))
		end(s, c)
		if err := stream.Next(new(int)); err == nil {
			t.Errorf("%s closed, stream goes on", name)
		}
		stream.Close()
	}
}

func TestSwappedCredentialsAreUsed(t *testing.T) {
	root := newRoot()
	s := serveMux(t, source(root, "m1", mgr), routes(nil))
	src := source(root, "n", wrk)
	c := client(t, src)
	call := func() error { return c.Call(t.Context(), s.Addr().String(), "POST", "/managers", echo{}, nil) }
	if err := call(); api.KindOf(err) != api.Forbidden {
		t.Fatal(err)
	}
	src.Swap(credentials(root, "n", mgr))
	if err := call(); err != nil {
		t.Fatal(err)
	}
}

func TestRaftStream(t *testing.T) {
	root := newRoot()
	a := serveMux(t, source(root, "m1", mgr), routes(nil))
	b := serveMux(t, source(root, "m2", mgr), routes(nil))
	w := serveMux(t, source(root, "w1", wrk), routes(nil))
	sa, sb, sw := a.RaftStream(), b.RaftStream(), w.RaftStream()
	if sa.Addr().String() != a.Addr().String() {
		t.Errorf("raft address %s", sa.Addr())
	}
	out := must(sa.Dial(raft.ServerAddress(b.Addr().String()), time.Second))
	defer out.Close()
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	in := must(sb.Accept())
	defer in.Close()
	if _, err := in.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := sa.Dial(raft.ServerAddress(w.Addr().String()), time.Second); err == nil || !strings.Contains(err.Error(), "want a manager") {
		t.Errorf("raft to a worker: %v", err)
	}
	refused := must(sw.Dial(raft.ServerAddress(b.Addr().String()), time.Second))
	defer refused.Close()
	refused.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := refused.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a worker reads from raft: %v", err)
	}
	sb.Close()
	if _, err := sb.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := client(t, source(root, "m3", mgr)).Call(t.Context(), b.Addr().String(), "POST", "/all", echo{}, nil); err != nil {
		t.Errorf("the port died with raft: %v", err)
	}
	again := b.RaftStream()
	out2 := must(sa.Dial(raft.ServerAddress(b.Addr().String()), time.Second))
	defer out2.Close()
	must(again.Accept()).Close()
}

func TestConnectionsWithoutProtocolAreClosed(t *testing.T) {
	root := newRoot()
	src := source(root, "m1", mgr)
	s := serveMux(t, src, routes(nil))
	conn := must(tls.Dial("tcp", s.Addr().String(), ca.ClientConfig(src, ca.Want{})))
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v", err)
	}
	raw := must(net.Dial("tcp", s.Addr().String())) // says nothing; Close must not wait for it
	defer raw.Close()
}

func TestUnreachableManagerIsUnavailable(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	addr := l.Addr().String()
	l.Close()
	err := client(t, source(newRoot(), "w", wrk)).Call(t.Context(), addr, "GET", "/", nil, nil)
	if api.KindOf(err) != api.Unavailable {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = client(t, source(newRoot(), "w", wrk)).Call(ctx, addr, "GET", "/", nil, nil)
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// A peer that goes silent without closing is noticed by pings.
func TestSilentPeerIsNoticed(t *testing.T) {
	root := newRoot()
	mux := NewMux(nil)
	mux.Handle("POST /lines", func(w http.ResponseWriter, r *http.Request) error {
		_, err := NewLines(w)
		<-r.Context().Done()
		return err
	}, wrk)
	s := serveMux(t, source(root, "m1", mgr), mux)
	hole := &blackHole{}
	c := NewClient(source(root, "w", wrk), hole.dial)
	t.Cleanup(c.Close)
	stream := must(c.Stream(t.Context(), s.Addr().String(), "/lines", nil))
	defer stream.Close()
	hole.silence()
	start := time.Now()
	if err := stream.Next(new(int)); api.KindOf(err) != api.Unavailable {
		t.Error(err)
	}
	if took := time.Since(start); took > 2*(pingAfter+pingTimeout) {
		t.Errorf("noticed after %s", took)
	}
}
