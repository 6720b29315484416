package lbtest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"shoal/overlay/netns"
)

var spaces atomic.Int64

// namespace makes a namespace for the test and takes it away afterwards. Without
// packets it is only a name.
func (s *suite) namespace(t *testing.T) string {
	t.Helper()
	n := spaces.Add(1)
	if !s.caps.Packets {
		return fmt.Sprintf("space-%d", n)
	}
	path := filepath.Join("/run/netns", fmt.Sprintf("dataplane-%d-%d", os.Getpid(), n))
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(path); err != nil {
			t.Error(err)
		}
	})
	ip(t, path, "link set lo up")
	return path
}

// ip runs commands of ip(8), one a line, inside a namespace.
func ip(t *testing.T, path, commands string) {
	t.Helper()
	err := netns.Do(path, func() error {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(commands + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("ip: %w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("in %s: %q: %v", path, commands, err)
	}
}

// Network is a switch with hosts in it, numbered from 1 by the order of Join.
type network struct {
	t     *testing.T
	s     *suite
	sw    string
	hosts int
}

func (s *suite) newNetwork(t *testing.T) *network {
	n := &network{t: t, s: s, sw: s.namespace(t)}
	ip(t, n.sw, "link add br0 type bridge\nlink set br0 up")
	return n
}

// host is a namespace with one leg in a network.
type host struct {
	n    *network
	ns   string
	name string
	last byte // of its addresses
}

// addr is the host's address in the wanted family.
func (h *host) addr(six bool) netip.Addr { return address(six, h.last) }

// address is an address of the network: 10.9.0.0/24 and fd09::/64.
func address(six bool, last byte) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 15: last})
	}
	return netip.AddrFrom4([4]byte{10, 9, 0, last})
}

// join adds a host with that last byte of its addresses.
func (n *network) join(name string, last byte) *host {
	h := &host{n: n, ns: n.s.namespace(n.t), name: name, last: last}
	n.hosts++
	link := fmt.Sprintf("p%d", n.hosts)
	ip(n.t, n.sw, fmt.Sprintf("link add %s type veth peer name eth0 netns %s\nlink set %s master br0\nlink set %s up",
		link, filepath.Base(h.ns), link, link))
	ip(n.t, h.ns, fmt.Sprintf("addr add %s/24 dev eth0\naddr add %s/64 dev eth0 nodad\nlink set eth0 up",
		h.addr(false), h.addr(true)))
	return h
}

// reply is what a server answers: its own name and the client it sees.
func reply(name string, client net.Addr) string {
	return name + " " + netip.MustParseAddrPort(client.String()).Addr().Unmap().String() + "\n"
}

// serve answers on a TCP and a UDP port of the host until the test ends: one
// line at once for each TCP connection, then one for each line received; one for
// each datagram.
func (h *host) serve(port uint16) {
	h.n.t.Helper()
	where := fmt.Sprintf("[::]:%d", port)
	l, err := netns.Listen(context.Background(), h.ns, "tcp", where)
	if err != nil {
		h.n.t.Fatal(err)
	}
	p, err := netns.ListenPacket(context.Background(), h.ns, "udp", where)
	if err != nil {
		h.n.t.Fatal(err)
	}
	h.n.t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go h.talk(c)
		}
	}()
	go func() {
		buf := make([]byte, 1500)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			if _, err := p.WriteTo([]byte(reply(h.name, from)), from); err != nil {
				return
			}
		}
	}()
}

func (h *host) talk(c net.Conn) {
	defer c.Close()
	lines := bufio.NewScanner(c)
	for {
		if _, err := c.Write([]byte(reply(h.name, c.RemoteAddr()))); err != nil || !lines.Scan() {
			return
		}
	}
}

// dial connects from the host, or fails within the suite's patience.
func (h *host) dial(proto string, to netip.AddrPort) (*client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), h.n.s.patience())
	defer cancel()
	c, err := netns.Dial(ctx, h.ns, proto, to.String())
	if err != nil {
		return nil, err
	}
	return &client{Conn: c, lines: bufio.NewReader(c), wait: h.n.s.patience(), stream: proto == "tcp"}, nil
}

// client is one flow.
type client struct {
	net.Conn
	lines  *bufio.Reader
	wait   time.Duration
	stream bool
	spoken bool
}

// ask gets one answer: the server's name and the address it sees.
func (c *client) ask() (server, seen string, err error) {
	if err := c.SetDeadline(time.Now().Add(c.wait)); err != nil {
		return "", "", err
	}
	if !c.stream || c.spoken {
		if _, err := c.Write([]byte("?\n")); err != nil {
			return "", "", err
		}
	}
	c.spoken = true
	line, err := c.lines.ReadString('\n')
	if err != nil {
		return "", "", err
	}
	server, seen, _ = strings.Cut(strings.TrimSpace(line), " ")
	return server, seen, nil
}

// once makes a new flow, asks once and ends it.
func (h *host) once(proto string, to netip.AddrPort) (server, seen string, err error) {
	c, err := h.dial(proto, to)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	return c.ask()
}

// count asks by n new flows, and returns how many each server answered. All
// must see the client as want.
func (h *host) count(proto string, to netip.AddrPort, n int, want netip.Addr) map[string]int {
	h.n.t.Helper()
	got := map[string]int{}
	for range n {
		server, seen, err := h.once(proto, to)
		if err != nil {
			h.n.t.Fatalf("%s to %s: %v (after %v)", proto, to, err, got)
		}
		if want.IsValid() && seen != want.String() {
			h.n.t.Fatalf("%s to %s: %s sees the client as %s, want %s", proto, to, server, seen, want)
		}
		got[server]++
	}
	return got
}

// base is the name under /run/netns by which ip(8) knows the namespace.
func base(path string) string { return filepath.Base(path) }
