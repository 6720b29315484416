package gossip

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shoal/overlay/endpoint"
)

// memberlist does not wait for a probe that is under way at its shutdown, nor Serf for
// a member that it is about to forget; they end by themselves within a few seconds.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
		goleak.IgnoreAnyFunction("github.com/hashicorp/serf/serf.(*Serf).handlePrune.func1"))
}

// testCA signs certificates as control/ca does: the common name is the node id.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test-ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	ca := &testCA{cert: cert, key: key, pool: x509.NewCertPool()}
	ca.pool.AddCert(cert)
	return ca
}

// issue returns the server's and the client's side of a node's mutual TLS.
func (ca *testCA) issue(t testing.TB, id string) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: id}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, &key.PublicKey, ca.key)
	must(t, err)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	server = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool}
	client = &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: ca.pool})
		return err
	}}
	return server, client
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fabric lets a test cut and disturb the network between the nodes of a test. A
// node is known by the IP address it is bound to.
type fabric struct {
	mu    sync.Mutex
	side  map[netip.Addr]int
	loss  float64
	conns map[*fabricConn]struct{}
}

func newFabric() *fabric {
	return &fabric{side: map[netip.Addr]int{}, conns: map[*fabricConn]struct{}{}}
}

func (f *fabric) cut(a, b netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.side[a] != f.side[b]
}

// partition puts the addresses on the given side, breaking streams across.
func (f *fabric) partition(side int, addrs ...netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range addrs {
		f.side[a] = side
	}
	for c := range f.conns {
		if f.side[c.from] != f.side[c.to] {
			_ = c.Conn.Close()
			delete(f.conns, c)
		}
	}
}

func (f *fabric) setLoss(p float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loss = p
}

func (f *fabric) drops() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return mathrand.Float64() < f.loss
}

type fabricConn struct {
	net.Conn
	from, to netip.Addr
}

type fabricPackets struct {
	net.PacketConn
	f    *fabric
	from netip.Addr
}

func (p fabricPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	if p.f.cut(p.from, to.(*net.UDPAddr).AddrPort().Addr().Unmap()) || p.f.drops() {
		return len(b), nil
	}
	return p.PacketConn.WriteTo(b, to)
}

func (f *fabric) plug(cfg *Config) {
	own := cfg.Bind.Addr()
	cfg.ListenPacket = func(a netip.AddrPort) (net.PacketConn, error) {
		c, err := listenPacket(a)
		return fabricPackets{c, f, own}, err
	}
	cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, err
		}
		if f.cut(own, to.Addr()) {
			return nil, fmt.Errorf("no route to %s", addr)
		}
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: own.AsSlice()}}
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		fc := &fabricConn{c, own, to.Addr()}
		f.mu.Lock()
		f.conns[fc] = struct{}{}
		f.mu.Unlock()
		return fc, nil
	}
}

var testKeyA, testKeyB = bytes.Repeat([]byte{1}, keyBytes), bytes.Repeat([]byte{2}, keyBytes)

// node is one gossiping node of a test.
type node struct {
	*Gossip
	table *endpoint.Table
	ip    netip.Addr
	cfg   Config
}

type cluster struct {
	t      testing.TB
	ca     *testCA
	fabric *fabric
	nodes  []*node
}

func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, ca: newTestCA(t), fabric: newFabric()}
	for i := range n {
		c.add(fmt.Sprintf("node%d", i), 1, 0)
	}
	return c
}

// testPace is DefaultProfile without waiting long for the rare things.
func testPace() Profile {
	p := DefaultProfile()
	p.RejoinInterval = 300 * time.Millisecond
	p.SyncInterval = time.Second
	return p
}

var logTests = os.Getenv("GOSSIP_TEST_LOG") != ""

func (c *cluster) config(id string, ip netip.Addr, epoch uint64, port uint16) Config {
	server, client := c.ca.issue(c.t, id)
	cfg := Config{
		NodeID: id, Name: "host-" + id, Bind: netip.AddrPortFrom(ip, port), Keys: [][]byte{testKeyA},
		ServerTLS: server, ClientTLS: client, Table: endpoint.New(id, epoch), Profile: testPace(),
	}
	if logTests {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", id)
	}
	c.fabric.plug(&cfg)
	return cfg
}

// add starts a node and joins it to the first one.
func (c *cluster) add(id string, epoch uint64, port uint16) *node {
	c.t.Helper()
	ip := netip.AddrFrom4([4]byte{127, 0, 77, byte(len(c.nodes) + 1)})
	return c.start(c.config(id, ip, epoch, port))
}

func (c *cluster) start(cfg Config) *node {
	c.t.Helper()
	g, err := Start(cfg)
	must(c.t, err)
	n := &node{Gossip: g, table: cfg.Table, ip: cfg.Bind.Addr(), cfg: cfg}
	c.t.Cleanup(func() {
		if err := g.Shutdown(); err != nil {
			c.t.Error(err)
		}
	})
	if len(c.nodes) > 0 {
		g.Join([]string{c.nodes[0].Addr().String()})
	}
	c.nodes = append(c.nodes, n)
	return n
}

// write sets a record of a node and publishes it.
func (n *node) write(key, service string) endpoint.Record {
	r := n.table.Set(key, endpoint.Value{
		ServiceName: service, VTEP: n.ip,
		Attachments: []endpoint.Attachment{{NetworkID: "net1", MAC: "02:42:0a:00:00:05", Addrs: []netip.Addr{n.ip}}},
	})
	n.Publish([]endpoint.Record{r})
	return r
}

func (n *node) sees(id string) MemberState {
	for _, m := range n.Members() {
		if m.NodeID == id {
			return m.State
		}
	}
	return ""
}

// eventually waits for a condition and reports how long it took.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin)
}

func agree(nodes []*node) bool {
	want := nodes[0].table.Digest().Sum()
	for _, n := range nodes[1:] {
		if n.table.Digest().Sum() != want {
			return false
		}
	}
	return true
}

func (c *cluster) formed() {
	c.t.Helper()
	eventually(c.t, 15*time.Second, "all members see each other", func() bool {
		for _, n := range c.nodes {
			for _, m := range c.nodes {
				if n.sees(m.cfg.NodeID) != Alive {
					return false
				}
			}
		}
		return true
	})
}

func newFabricAddr() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 77, 99}) }

var anyAddr = netip.MustParseAddrPort("0.0.0.0:0")

func refuseListen(netip.AddrPort) (net.Listener, error) { return nil, os.ErrPermission }
