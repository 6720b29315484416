package ca

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
)

// shake runs one handshake over a loopback connection, passes a byte each way,
// and returns what the server made of it.
func shake(t *testing.T, server, client *tls.Config) (Identity, bool, error) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	type result struct {
		id    Identity
		known bool
		err   error
	}
	done := make(chan result, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- result{err: err}
			return
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(5 * time.Second))
		conn := tls.Server(raw, server)
		if err := conn.Handshake(); err != nil {
			done <- result{err: err}
			return
		}
		_, err = conn.Write([]byte{1})
		state := conn.ConnectionState()
		id, known := PeerOf(&state)
		done <- result{id, known, err}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	r := <-done
	return r.id, r.known, errors.Join(err, r.err)
}

func TestConnections(t *testing.T) {
	now := time.Now()
	root, other := must(NewRoot(now.Add(-100*time.Hour))), must(NewRoot(now))
	source := func(r *Root, id Identity) *Source { return NewSource(credentials(r, id, now, 0)) }
	mgr, wrk := source(root, manager("m")), source(root, worker("w"))
	expired := NewSource(credentials(root, worker("w"), now.Add(-30*time.Hour), 2*time.Hour))
	future := NewSource(credentials(root, worker("w"), now.Add(5*time.Hour), 0))
	stranger := source(other, manager("x"))
	elsewhere := source(root, Identity{"e", swarm.NodeRoleManager, "c2"})
	any, asManager := Want{}, Want{Role: swarm.NodeRoleManager}
	token := NewToken(root.Cert)
	for name, c := range map[string]struct {
		server, client *tls.Config
		id             Identity
		words          string // of the refusal
	}{
		"worker to manager":         {ServerConfig(mgr), ClientConfig(wrk, asManager), worker("w"), ""},
		"manager to manager":        {ServerConfig(mgr), ClientConfig(mgr, Want{swarm.NodeRoleManager, "m"}), manager("m"), ""},
		"worker to worker":          {MutualServerConfig(wrk), MutualClientConfig(wrk), worker("w"), ""},
		"wrong role":                {ServerConfig(wrk), ClientConfig(mgr, asManager), Identity{}, "peer w is a worker, want a manager"},
		"wrong node":                {ServerConfig(mgr), ClientConfig(wrk, Want{NodeID: "q"}), Identity{}, "peer is node m, want node q"},
		"server of another root":    {ServerConfig(stranger), ClientConfig(wrk, any), Identity{}, "unknown authority"},
		"client of another root":    {ServerConfig(mgr), ClientConfig(stranger, any), Identity{}, "unknown authority"},
		"mutual, another root":      {MutualServerConfig(mgr), tlsShowing(stranger), Identity{}, "unknown authority"},
		"control, another root":     {ServerConfig(mgr), tlsShowing(stranger), Identity{}, "unknown authority"},
		"control, another cluster":  {ServerConfig(mgr), tlsShowing(elsewhere), Identity{}, "is of cluster c2"},
		"server of another cluster": {ServerConfig(elsewhere), ClientConfig(wrk, any), Identity{}, "is of cluster c2"},
		"expired client":            {ServerConfig(mgr), ClientConfig(expired, any), Identity{}, "expired"},
		"expired server":            {ServerConfig(expired), ClientConfig(mgr, any), Identity{}, "expired"},
		"client not yet valid":      {ServerConfig(mgr), ClientConfig(future, any), Identity{}, "expired or is not yet valid"},
		"mutual, no certificate":    {MutualServerConfig(mgr), JoinConfig(token), Identity{}, "certificate"},
		"join":                      {ServerConfig(mgr), JoinConfig(token), Identity{}, ""},
		"join at a worker":          {ServerConfig(wrk), JoinConfig(token), Identity{}, "want a manager"},
		"join with another root":    {ServerConfig(stranger), JoinConfig(token), Identity{}, "not the one that the join token names"},
		"join, root shown on top":   {withChain(stranger, root), JoinConfig(token), Identity{}, "unknown authority"},
		"TLS 1.2":                   {ServerConfig(mgr), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, Identity{}, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			id, known, err := shake(t, c.server, c.client)
			if c.words == "" && err != nil || c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
				t.Fatalf("got %v, want words %q", err, c.words)
			}
			if err == nil && (id != c.id || known != (c.id != Identity{})) {
				t.Errorf("server saw %+v (%v), want %+v", id, known, c.id)
			}
		})
	}
}

// tlsShowing is a client that trusts anybody and shows its certificate.
func tlsShowing(src *Source) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, GetClientCertificate: ClientConfig(src, Want{}).GetClientCertificate}
}

// withChain is a server that shows a root which did not sign its certificate.
func withChain(src *Source, root *Root) *tls.Config {
	cert := *src.Current().certificate()
	cert.Certificate = [][]byte{cert.Certificate[0], root.Cert.Raw}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

func TestSwapTakesEffectOnTheNextConnection(t *testing.T) {
	root := must(NewRoot(time.Now()))
	server := NewSource(credentials(root, worker("s"), time.Now(), 0))
	client := NewSource(credentials(root, worker("w"), time.Now(), 0))
	serverConfig, clientConfig := ServerConfig(server), ClientConfig(client, Want{Role: swarm.NodeRoleManager})
	if _, _, err := shake(t, serverConfig, clientConfig); err == nil {
		t.Fatal("a worker was taken for a manager")
	}
	server.Swap(credentials(root, manager("s"), time.Now(), 0))
	client.Swap(credentials(root, manager("w"), time.Now(), 0))
	id, _, err := shake(t, serverConfig, clientConfig)
	if err != nil || id != manager("w") {
		t.Fatalf("after the swap: %+v, %v", id, err)
	}
}

func TestProtocolsAreNegotiated(t *testing.T) {
	root := must(NewRoot(time.Now()))
	src := NewSource(credentials(root, manager("m"), time.Now(), 0))
	if _, _, err := shake(t, ServerConfig(src, "h2", "x"), ClientConfig(src, Want{}, "x")); err != nil {
		t.Error(err)
	}
	if _, _, err := shake(t, ServerConfig(src, "h2", "x"), ClientConfig(src, Want{}, "y")); err == nil {
		t.Error("an unknown protocol was accepted")
	}
}
