package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/control/ca"
)

// node is a member of a cluster of two.
func node(t *testing.T, root *ca.Root, id, cluster string) *ca.Source {
	t.Helper()
	csr, key, err := ca.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := root.Issue(csr, ca.Identity{NodeID: id, Role: swarm.NodeRoleWorker, ClusterID: cluster}, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	creds, err := ca.NewCredentials(key, cert, root.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	return ca.NewSource(creds)
}

// serve runs a server whose connections come as from the gossip port, and returns
// a client's way to it.
func serve(t *testing.T, h http.Handler, source *ca.Source, admit func(string) error) func(*ca.Source) *Client {
	t.Helper()
	s := NewServer(h, admit, slog.New(slog.DiscardHandler))
	l, err := tls.Listen("tcp", "127.0.0.1:0", ca.MutualServerConfig(source, Protocol))
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if conn.(*tls.Conn).Handshake() != nil {
				_ = conn.Close()
				continue
			}
			s.Take(conn.(*tls.Conn))
		}
	}()
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), s.Close()); err != nil {
			t.Error(err)
		}
		<-accepted
	})
	return func(as *ca.Source) *Client {
		c := NewClient(func(ctx context.Context, _, protocol string) (net.Conn, error) {
			d := tls.Dialer{Config: ca.MutualClientConfig(as, protocol)}
			return d.DialContext(ctx, "tcp", l.Addr().String())
		})
		t.Cleanup(c.Close)
		return c
	}
}

func TestAsk(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	root, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := http.NewServeMux()
	h.HandleFunc("/name", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"Name":"` + r.URL.Query().Get("of") + `"}`))
	})
	h.HandleFunc("/refused", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"message":"no such thing"}`))
	})
	open := serve(t, h, node(t, root, "n1", "c"), func(id string) error {
		if id == "gone" {
			return api.Errorf(api.Forbidden, "node %s is no node of the cluster any more", id)
		}
		return nil
	})
	c := open(node(t, root, "n2", "c"))
	var out struct{ Name string }
	if err := c.Get(t.Context(), "n1", "/name", url.Values{"of": {"me"}}, &out); err != nil || out.Name != "me" {
		t.Errorf("asked: %+v %v", out, err)
	}
	err = c.Get(t.Context(), "n1", "/refused", nil, &out)
	if api.KindOf(err) != api.Invalid || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("a refusal is %v", err)
	}
	if err := open(node(t, root, "gone", "c")).Get(t.Context(), "n1", "/name", nil, &out); api.KindOf(err) != api.Forbidden {
		t.Errorf("a node that was removed: %v", err)
	}
	if err := open(node(t, root, "n2", "other")).Get(t.Context(), "n1", "/name", nil, &out); api.KindOf(err) != api.Unavailable {
		t.Errorf("a node of another cluster: %v", err)
	}
}

// TestConnectionsAreBounded: who opens too many is turned away, and those that end
// make room.
func TestConnectionsAreBounded(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	root, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	open := serve(t, ok, node(t, root, "n1", "c"), func(string) error { return nil })
	source := node(t, root, "n2", "c")
	var clients []*Client
	refused := 0
	for range connectionsMax + 3 {
		c := open(source) // each keeps its connection
		clients = append(clients, c)
		if c.Get(t.Context(), "n1", "/", nil, &struct{}{}) != nil {
			refused++
		}
	}
	if refused != 3 {
		t.Errorf("%d of %d connections were refused", refused, len(clients))
	}
	for _, c := range clients {
		c.Close()
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if open(source).Get(t.Context(), "n1", "/", nil, &struct{}{}) == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("connections that ended make no room")
		}
	}
}

// TestRefusedNodesTakeUpNoPlace: their connections end with the refusal.
func TestRefusedNodesTakeUpNoPlace(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	root, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })
	open := serve(t, ok, node(t, root, "n1", "c"), func(id string) error {
		if id == "gone" {
			return api.Errorf(api.Forbidden, "node %s was removed", id)
		}
		return nil
	})
	gone := node(t, root, "gone", "c")
	for range connectionsMax {
		if err := open(gone).Get(t.Context(), "n1", "/", nil, &struct{}{}); api.KindOf(err) != api.Forbidden {
			t.Fatalf("a removed node: %v", err)
		}
	}
	member := node(t, root, "n2", "c")
	for deadline := time.Now().Add(5 * time.Second); open(member).Get(t.Context(), "n1", "/", nil, &struct{}{}) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("they keep others out")
		}
	}
}
