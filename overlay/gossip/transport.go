package gossip

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// packetBytesMax is the largest packet read; memberlist sends far smaller ones.
	packetBytesMax = 64 << 10
	// packetsQueued bounds packets between socket and memberlist: beyond it they
	// are dropped, as the kernel would.
	packetsQueued = 2048
	// streamsMax bounds the incoming streams served at once, handshakes included.
	streamsMax = 256
)

// transport carries memberlist's packets over UDP, and its streams and ours over
// TLS at the same port. It is a memberlist.NodeAwareTransport.
type transport struct {
	cfg     *Config
	door    *door
	addr    netip.AddrPort
	packets net.PacketConn
	streams net.Listener
	server  *tls.Config

	packetCh chan *memberlist.Packet
	streamCh chan net.Conn
	// serve handles one ProtocolPull connection and closes it.
	serve func(*tls.Conn)

	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{}
	wg     sync.WaitGroup
	once   sync.Once
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(cfg *Config, door *door, serve func(*tls.Conn)) (*transport, error) {
	t := &transport{
		cfg: cfg, door: door, server: serverTLS(cfg.ServerTLS, cfg.protocols()), serve: serve,
		packetCh: make(chan *memberlist.Packet, packetsQueued),
		streamCh: make(chan net.Conn),
		slots:    make(chan struct{}, streamsMax),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if err := t.listen(); err != nil {
		t.cancel()
		return nil, err
	}
	t.wg.Add(2)
	go t.readPackets()
	go t.acceptStreams()
	return t, nil
}

// bindTries bounds the search for a port that is free for both TCP and UDP.
const bindTries = 10

func (t *transport) listen() error {
	var err error
	for range bindTries {
		if err = t.listenOnce(); err == nil || t.cfg.Bind.Port() != 0 {
			return err
		}
	}
	return err
}

func (t *transport) listenOnce() error {
	streams, err := t.cfg.Listen(t.cfg.Bind)
	if err != nil {
		return fmt.Errorf("listen for gossip streams at %s: %w", t.cfg.Bind, err)
	}
	bound, err := netip.ParseAddrPort(streams.Addr().String())
	if err != nil {
		return errors.Join(fmt.Errorf("parse gossip listener's address %s: %w", streams.Addr(), err), streams.Close())
	}
	t.addr = netip.AddrPortFrom(t.cfg.Bind.Addr(), bound.Port())
	t.packets, err = t.cfg.ListenPacket(t.addr)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for gossip packets at %s: %w", t.addr, err), streams.Close())
	}
	t.streams = streams
	return nil
}

// FinalAdvertiseAddr returns the address the transport is bound to.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(t.addr.Addr().Unmap().AsSlice()), int(t.addr.Port()), nil
}

// WriteTo sends one packet; it may be lost.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send gossip packet: %w", err)
	}
	_, err = t.packets.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

// WriteToAddress is WriteTo, but what is for a node that was removed gets lost, as on a
// network: memberlist must find it dead. One that is only not known yet is answered.
func (t *transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	if t.door.isGone(addr.Name) {
		return time.Now(), nil
	}
	return t.WriteTo(b, addr.Addr)
}

// DialTimeout opens a memberlist stream.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a memberlist stream to the node of the given name.
func (t *transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	return t.dial(ctx, ProtocolGossip, addr.Name, addr.Addr)
}

// dial opens a stream of the given protocol and, where node is not empty, makes
// sure that it ends at that node.
func (t *transport) dial(ctx context.Context, protocol, node, addr string) (net.Conn, error) {
	raw, err := t.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial gossip peer %s: %w", addr, err)
	}
	conn := tls.Client(raw, clientTLS(t.cfg.ClientTLS, protocol, addr))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("greet gossip peer %s: %w", addr, err), raw.Close())
	}
	if err := t.checkPeer(conn.ConnectionState(), protocol, node); err != nil {
		return nil, errors.Join(fmt.Errorf("gossip peer %s: %w", addr, err), conn.Close())
	}
	return conn, nil
}

// PacketCh delivers packets to memberlist.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

// StreamCh delivers streams to memberlist.
func (t *transport) StreamCh() <-chan net.Conn { return t.streamCh }

// Shutdown closes the sockets and every stream being served, and waits for their
// goroutines. It may be called again.
func (t *transport) Shutdown() error {
	var err error
	t.once.Do(func() {
		t.cancel()
		err = errors.Join(t.streams.Close(), t.packets.Close())
		t.wg.Wait()
	})
	return err
}

func (t *transport) readPackets() {
	defer t.wg.Done()
	buf := make([]byte, packetBytesMax)
	for t.ctx.Err() == nil {
		n, from, err := t.packets.ReadFrom(buf)
		if err != nil {
			t.pause(err, "read gossip packet")
			continue
		}
		if n == 0 {
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.packetCh <- p:
		default: // a full queue drops, like the network
		}
	}
}

// errorPause keeps a socket that fails at once from spinning.
const errorPause = 20 * time.Millisecond

func (t *transport) pause(err error, what string) {
	if t.ctx.Err() != nil {
		return
	}
	t.cfg.Logger.Warn(what, "err", err)
	select {
	case <-t.ctx.Done():
	case <-time.After(errorPause):
	}
}

func (t *transport) acceptStreams() {
	defer t.wg.Done()
	for t.ctx.Err() == nil {
		conn, err := t.streams.Accept()
		if err != nil {
			t.pause(err, "accept gossip stream")
			continue
		}
		select {
		case t.slots <- struct{}{}:
			t.wg.Add(1)
			go t.greet(conn)
		default:
			_ = conn.Close() // the dialer sees it and tries again later
		}
	}
}

// greet does the server's part of the handshake and hands the stream on.
func (t *transport) greet(raw net.Conn) {
	defer t.wg.Done()
	defer func() { <-t.slots }()
	ctx, cancel := context.WithTimeout(t.ctx, t.cfg.Profile.StreamTimeout)
	defer cancel()
	conn := tls.Server(raw, t.server)
	if err := conn.HandshakeContext(ctx); err != nil {
		t.cfg.Logger.Info("refused gossip stream", "from", raw.RemoteAddr().String(), "err", err)
		_ = raw.Close()
		return
	}
	state := conn.ConnectionState()
	if err := t.checkClient(state); err != nil {
		t.cfg.Logger.Info("refused gossip stream", "from", raw.RemoteAddr().String(), "err", err)
		_ = conn.Close()
		return
	}
	if state.NegotiatedProtocol == ProtocolPull {
		stop := context.AfterFunc(t.ctx, func() { _ = conn.Close() })
		defer stop()
		t.serve(conn)
		return
	}
	if take := t.cfg.Others[state.NegotiatedProtocol]; take != nil {
		take(conn)
		return
	}
	select {
	case t.streamCh <- conn:
	case <-ctx.Done():
		_ = conn.Close()
	}
}

// serverTLS offers our protocols, also where the configuration is made anew for
// every client.
func serverTLS(base *tls.Config, protocols []string) *tls.Config {
	c := base.Clone()
	c.NextProtos = protocols
	c.MinVersion = tls.VersionTLS13
	if perClient := base.GetConfigForClient; perClient != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			made, err := perClient(hello)
			if err != nil || made == nil {
				return made, err
			}
			made = made.Clone()
			made.NextProtos = protocols
			return made, nil
		}
	}
	return c
}

func clientTLS(base *tls.Config, protocol, addr string) *tls.Config {
	c := base.Clone()
	c.NextProtos = []string{protocol}
	c.MinVersion = tls.VersionTLS13
	if c.ServerName == "" && !c.InsecureSkipVerify {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			c.ServerName = host
		}
	}
	return c
}

// checkClient refuses streams of nobody known to us. Those of ProtocolPull and of
// Config.Others are looked at with each request, where a refusal can be answered.
func (t *transport) checkClient(state tls.ConnectionState) error {
	protocol := state.NegotiatedProtocol
	if protocol == "" {
		return errors.New("asked for no protocol")
	}
	if protocol != ProtocolGossip {
		return checkCertificate(state, protocol, "")
	}
	return t.checkPeer(state, protocol, "")
}

// checkPeer is checkCertificate, and refuses nodes that are not admitted.
func (t *transport) checkPeer(state tls.ConnectionState, protocol, node string) error {
	if err := checkCertificate(state, protocol, node); err != nil {
		return err
	}
	return t.door.refusal(peerOf(state))
}

// peerOf is the node that the other side's certificate names.
func peerOf(state tls.ConnectionState) string { return state.PeerCertificates[0].Subject.CommonName }

func checkCertificate(state tls.ConnectionState, protocol, node string) error {
	if state.NegotiatedProtocol != protocol {
		return fmt.Errorf("does not speak %s", protocol)
	}
	var cert *x509.Certificate
	if len(state.PeerCertificates) > 0 {
		cert = state.PeerCertificates[0]
	}
	switch {
	case cert == nil:
		return errors.New("showed no certificate")
	case node != "" && cert.Subject.CommonName != node:
		return fmt.Errorf("is node %s, not node %s", cert.Subject.CommonName, node)
	}
	return nil
}
