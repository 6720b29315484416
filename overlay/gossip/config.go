package gossip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"shoal/overlay/endpoint"
)

// The names that TLS clients ask for by ALPN on the gossip port.
const (
	// ProtocolGossip is a memberlist stream.
	ProtocolGossip = "shoal-gossip"
	// ProtocolPull is a stream of requests between two endpoint tables.
	ProtocolPull = "shoal-pull"
)

// Protocols are the ALPN names that gossip itself speaks at its port.
func Protocols() []string { return []string{ProtocolGossip, ProtocolPull} }

// protocols are all ALPN names of the port, the handed-on ones last.
func (c *Config) protocols() []string {
	return append(Protocols(), slices.Sorted(maps.Keys(c.Others))...)
}

// Config is what Start needs.
type Config struct {
	// NodeID is the own node's id: its name in the membership, and the common
	// name of its certificate.
	NodeID string
	// Name is the node's host name, shown to people.
	Name string
	// Bind is the address and port, UDP and TCP, to listen at and to be reached
	// at. Port 0 takes a free one; see Gossip.Addr.
	Bind netip.AddrPort
	// Keys seal the packets, 32 bytes each, the primary first; at least one.
	Keys [][]byte
	// ServerTLS and ClientTLS verify that the other side is a node of this
	// cluster. The protocols to negotiate are filled in by this package.
	ServerTLS, ClientTLS *tls.Config
	// Table is the node's copy of the endpoint records; its Self is NodeID.
	Table *endpoint.Table
	// Profile is the pace; the zero value is DefaultProfile.
	Profile Profile
	// Admit, if not nil, returns why a node, whose certificate is good, takes no part:
	// the managers have removed it, or have not told of it here yet; nil for one
	// that does. It is asked about each member, stream and request, so it must answer
	// at once and call nothing of this package. The own node is not asked about.
	Admit func(nodeID string) error
	// MembersChanged, if not nil, is called after the set of members or a state
	// among them has changed and the table knows who is down. It may take its
	// time: changes meanwhile are one call.
	MembersChanged func()
	// Others take over the connections of nodes of this cluster that ask for a
	// protocol of theirs at the gossip port, by ALPN name. They must not block. Whom
	// they answer is theirs to decide: they can say why not.
	Others map[string]func(*tls.Conn)
	// Logger gets what people need to know; nil discards it.
	Logger *slog.Logger

	// ListenPacket, Listen and Dial replace the system's sockets, for tests.
	ListenPacket func(netip.AddrPort) (net.PacketConn, error)
	Listen       func(netip.AddrPort) (net.Listener, error)
	Dial         func(ctx context.Context, addr string) (net.Conn, error)
}

// Profile is the pace of the gossip. All times are multiplied by Scale.
type Profile struct {
	// ProbeInterval is how often a node probes one member, ProbeTimeout how long
	// it waits for the direct answer before it asks others to try.
	ProbeInterval, ProbeTimeout time.Duration
	// SuspicionMult × log10(members) × ProbeInterval, or without the logarithm
	// where it is below one, is how long a member that does not answer has to
	// speak up.
	SuspicionMult int
	// GossipInterval is how often news are sent to three members at random.
	GossipInterval time.Duration
	// BatchDelay is how long Publish waits for more records to share a packet.
	BatchDelay time.Duration
	// GapDelay is how long a missing delta may be late before it is pulled.
	GapDelay time.Duration
	// SyncInterval is how often digests are compared with a random member.
	SyncInterval time.Duration
	// RejoinInterval is how often a failed member, or without any live one every
	// address ever heard of, is tried again.
	RejoinInterval time.Duration
	// StreamTimeout bounds connecting, and one request with its answer.
	StreamTimeout time.Duration
	// Scale stretches all of the above for machines that are slower; 0 is 1.
	Scale float64
}

// DefaultProfile finds a dead node within about 1.5 s and lets a node on a busy
// machine stand still for almost a second without being taken for dead.
func DefaultProfile() Profile {
	return Profile{
		ProbeInterval:  250 * time.Millisecond,
		ProbeTimeout:   150 * time.Millisecond,
		SuspicionMult:  4,
		GossipInterval: 50 * time.Millisecond,
		BatchDelay:     5 * time.Millisecond,
		GapDelay:       100 * time.Millisecond,
		SyncInterval:   5 * time.Second,
		RejoinInterval: time.Second,
		StreamTimeout:  3 * time.Second,
		Scale:          1,
	}
}

// scaled multiplies every time by Scale.
func (p Profile) scaled() Profile {
	if p.Scale <= 0 {
		p.Scale = 1
	}
	for _, d := range []*time.Duration{
		&p.ProbeInterval, &p.ProbeTimeout, &p.GossipInterval, &p.BatchDelay,
		&p.GapDelay, &p.SyncInterval, &p.RejoinInterval, &p.StreamTimeout,
	} {
		*d = time.Duration(float64(*d) * p.Scale)
	}
	p.Scale = 1
	return p
}

func (c *Config) check() error {
	switch {
	case c.NodeID == "":
		return errors.New("no node id")
	case c.Table == nil:
		return errors.New("no endpoint table")
	case c.Table.Self() != c.NodeID:
		return fmt.Errorf("the endpoint table is of node %q, not of %q", c.Table.Self(), c.NodeID)
	case c.ServerTLS == nil || c.ClientTLS == nil:
		return errors.New("no tls configuration")
	case !c.Bind.Addr().IsValid() || c.Bind.Addr().IsUnspecified():
		return fmt.Errorf("bind address %s is not one that others can reach", c.Bind)
	}
	return checkKeys(c.Keys)
}

func (c *Config) fill() {
	if c.Profile == (Profile{}) {
		c.Profile = DefaultProfile()
	}
	c.Profile = c.Profile.scaled()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ListenPacket == nil {
		c.ListenPacket = listenPacket
	}
	if c.Listen == nil {
		c.Listen = func(a netip.AddrPort) (net.Listener, error) { return net.Listen("tcp", a.String()) }
	}
	if c.Dial == nil {
		var d net.Dialer
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
}

// receiveBytes is the socket buffer asked for: a burst of gossip from a large
// cluster must outlast a pause of the process.
const receiveBytes = 2 << 20

func listenPacket(a netip.AddrPort) (net.PacketConn, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
	if err != nil {
		return nil, err
	}
	// The kernel caps what it grants and packets may be lost anyway, so a
	// refusal changes nothing.
	_ = c.SetReadBuffer(receiveBytes)
	return c, nil
}
