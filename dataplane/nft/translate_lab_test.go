//go:build lab

package nft_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/bench/need"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
	"shoal/overlay/netns"
)

// room makes a namespace for the test.
func room(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join("/run/netns", fmt.Sprintf("dataplane-nat-%d-%s", os.Getpid(), name))
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(path) })
	run(t, path, "ip link set lo up")
	return path
}

func run(t testing.TB, ns string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		args := strings.Fields(line)
		if err := netns.Do(ns, func() error {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", line, err, out)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// echo answers each TCP connection and datagram on a port with the client's address.
func echo(t *testing.T, ns, where string) {
	t.Helper()
	l, err := netns.Listen(context.Background(), ns, "tcp", where)
	if err != nil {
		t.Fatal(err)
	}
	p, err := netns.ListenPacket(context.Background(), ns, "udp", where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.RemoteAddr())
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := p.ReadFrom(buf)
			if err != nil {
				return
			}
			p.WriteTo([]byte(from.String()), from)
		}
	}()
}

// ask returns the client's address as the server sees it.
func ask(ns, proto, to string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	c, err := netns.Dial(ctx, ns, proto, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return talkFor(c, 4*time.Second)
}

func talkFor(c net.Conn, patience time.Duration) (string, error) {
	c.SetDeadline(time.Now().Add(patience))
	if c.LocalAddr().Network() == "udp" {
		if _, err := c.Write([]byte("?")); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	if err != nil {
		return "", err
	}
	return netip.MustParseAddrPort(string(buf[:n])).Addr().Unmap().String(), nil
}

// TestLabTranslation is a node with a task behind its bridge:
//
//	outer 10.7.0.9 --- 10.7.0.1 node br0 172.30.0.1 --- 172.30.0.2 task
func TestLabTranslation(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	outer, node, task := room(t, "outer"), room(t, "node"), room(t, "task")
	run(t, node,
		"ip link add up0 type veth peer name up0 netns "+filepath.Base(outer), "ip addr add 10.7.0.1/24 dev up0",
		"ip addr add fd07::1/64 dev up0 nodad", "ip link set up0 up",
		"ip link add br0 type bridge", "ip addr add 172.30.0.1/24 dev br0", "ip addr add fd30::1/64 dev br0 nodad", "ip link set br0 up",
		"ip link add p1 type veth peer name eth0 netns "+filepath.Base(task), "ip link set p1 master br0", "ip link set p1 up",
		"ip link add far0 type veth peer name eth1 netns "+filepath.Base(task), "ip addr add fd31::1/64 dev far0 nodad", "ip link set far0 up",
		// Where bridged packets meet the filter, a task that calls its own forwarded port needs this.
		"ip link set p1 type bridge_slave hairpin on")
	run(t, outer, "ip addr add 10.7.0.9/24 dev up0", "ip addr add fd07::9/64 dev up0 nodad", "ip link set up0 up")
	run(t, task, "ip addr add 172.30.0.2/24 dev eth0", "ip addr add fd30::2/64 dev eth0 nodad", "ip link set eth0 up",
		"ip addr add fd31::2/64 dev eth1 nodad", "ip link set eth1 up",
		"ip route add default via 172.30.0.1", "ip route add default via fd30::1")
	echo(t, task, "[::]:80")
	echo(t, task, "[::]:81")
	echo(t, outer, "[::]:90")
	wish := lb.Translation{Namespace: node, Masquerade: []lb.Egress{
		{Source: netip.MustParsePrefix("172.30.0.0/24"), Bridge: "br0"}, {Source: netip.MustParsePrefix("fd30::/64"), Bridge: "br0"}}}
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP} {
		wish.Forwards = append(wish.Forwards,
			lb.Forward{Protocol: p, Port: 8080, To: netip.MustParseAddrPort("172.30.0.2:80"), Name: "web"},
			lb.Forward{Protocol: p, Port: 8080, To: netip.MustParseAddrPort("[fd30::2]:80"), Name: "web"},
			lb.Forward{Protocol: p, Port: 8180, To: netip.MustParseAddrPort("[fd31::2]:80"), Name: "mesh"})
	}
	d := nft.New()

	// A flow that began before its port was forwarded is not left behind.
	early, err := netns.Dial(context.Background(), outer, "udp", "10.7.0.1:8080")
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	early.Write([]byte("?"))
	translate(t, d, wish)
	waitAnswer(t, early)

	for _, proto := range []string{"tcp", "udp"} {
		for _, row := range []struct{ from, to, seen string }{
			{outer, "10.7.0.1:8080", "10.7.0.9"}, {outer, "[fd07::1]:8080", "fd07::9"},
			{node, "127.0.0.1:8080", "172.30.0.1"}, {node, "10.7.0.1:8080", ""}, {node, "[fd07::1]:8080", ""},
			{node, "[::1]:8180", "fd31::1"},
			{task, "10.7.0.9:90", "10.7.0.1"}, {task, "[fd07::9]:90", "fd07::1"},
			{task, "10.7.0.1:8080", "172.30.0.1"}, {task, "[fd07::1]:8080", "fd30::1"},
		} {
			seen, err := ask(row.from, proto, row.to)
			if err != nil || row.seen != "" && seen != row.seen {
				t.Errorf("%s from %s to %s: seen as %q, %v; want %q", proto, filepath.Base(row.from), row.to, seen, err, row.seen)
			}
		}
	}
	for _, to := range []string{"10.7.0.1:8081", "[::1]:8081", "[::1]:8080"} {
		if _, err := ask(node, "tcp", to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s is not forwarded: %v, want refused", to, err)
		}
	}
	// Loopback addresses of the node stay closed for neighbours, though its links carry them.
	run(t, task, "ip route add 127.9.9.9/32 via 172.30.0.1 dev eth0", "sysctl -qw net.ipv4.conf.eth0.route_localnet=1")
	echo(t, node, "127.9.9.9:99")
	run(t, task, "ip route del local 127.0.0.0/8 dev lo table local")
	if seen, err := ask(task, "tcp", "127.9.9.9:99"); err == nil {
		t.Errorf("a task reaches the node's loopback, seen as %s", seen)
	}

	// Another target: the established datagram flow follows.
	wish.Forwards[3].To = netip.MustParseAddrPort("172.30.0.2:81")
	translate(t, d, wish)
	waitAnswer(t, early)
	for _, damage := range []string{"nft flush table inet shoal_nat", "nft delete table inet shoal_nat",
		"nft flush chain inet shoal_nat postrouting", "nft flush map inet shoal_nat forward4"} {
		run(t, node, damage)
		if n := translate(t, d, wish); n == 0 {
			t.Errorf("%s: nothing was healed", damage)
		}
		if _, err := ask(outer, "tcp", "10.7.0.1:8080"); err != nil {
			t.Errorf("after %s: %v", damage, err)
		}
	}
	translate(t, d, lb.Translation{Namespace: node})
	if _, err := ask(outer, "tcp", "10.7.0.1:8080"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nothing is forwarded any more: %v, want refused", err)
	}
}

// translate applies, reads back and applies again.
func translate(t *testing.T, d *nft.Driver, wish lb.Translation) int {
	t.Helper()
	n, err := d.Translate(context.Background(), wish)
	if err != nil {
		t.Fatal(err)
	}
	have, err := d.ReadTranslation(context.Background(), wish.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	if len(have.Forwards) != len(wish.Forwards) || len(have.Masquerade) != len(wish.Masquerade) || len(have.Redirects) != len(wish.Redirects) {
		t.Fatalf("read back %+v, want %+v", have, wish)
	}
	if again, err := d.Translate(context.Background(), wish); again != 0 || err != nil {
		t.Fatalf("translated again: %d changed, %v", again, err)
	}
	return n
}

// waitAnswer asks over an established datagram flow until it is answered; single
// datagrams may be lost.
func waitAnswer(t *testing.T, c net.Conn) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		c.Write([]byte("?"))
		if n, err := c.Read(make([]byte, 64)); err == nil && n > 0 {
			return
		}
	}
	t.Error("the established datagram flow is answered by nobody")
}

// TestLabRedirect sends a task's questions to 127.0.0.11:53 to where its resolver listens.
func TestLabRedirect(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	task := room(t, "resolver")
	echo(t, task, "127.0.0.11:35353")
	wish := lb.Translation{Namespace: task}
	for _, p := range []lb.Protocol{lb.TCP, lb.UDP} {
		wish.Redirects = append(wish.Redirects, lb.Redirect{Protocol: p,
			From: netip.MustParseAddrPort("127.0.0.11:53"), To: netip.MustParseAddrPort("127.0.0.11:35353")})
	}
	d := nft.New()
	translate(t, d, wish)
	for _, proto := range []string{"tcp", "udp"} {
		if seen, err := ask(task, proto, "127.0.0.11:53"); err != nil {
			t.Errorf("%s: %q, %v", proto, seen, err)
		}
	}
	if _, err := ask(task, "tcp", "127.0.0.1:53"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("another loopback address: %v, want refused", err)
	}
	if rules := list(t, task); strings.Contains(rules, "type filter") {
		t.Errorf("every packet of the task meets a chain:\n%s", rules)
	}
	run(t, task, "ip route add 192.0.2.0/24 dev lo")
	wish.Forwards = []lb.Forward{{Protocol: lb.TCP, Port: 80, To: netip.MustParseAddrPort("192.0.2.1:80")}}
	translate(t, d, wish)
	if rules := list(t, task); !strings.Contains(rules, "chain guard") {
		t.Errorf("a port leads to another link, and nothing guards the loopback's addresses:\n%s", rules)
	}
}
