//go:build lab

package nft_test

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/bench/need"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
	"shoal/overlay/netns"
)

// askAs is ask from one of several addresses of the namespace; it does not wait long.
func askAs(ns, proto, from, to string) (answer string, segment int, err error) {
	d := net.Dialer{Timeout: 500 * time.Millisecond}
	if proto == "tcp" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	} else {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	var c net.Conn
	if err := netns.Do(ns, func() (err error) {
		c, err = d.Dial(proto, to)
		return err
	}); err != nil {
		return "", 0, err
	}
	defer c.Close()
	if tcp, ok := c.(*net.TCPConn); ok {
		raw, err := tcp.SyscallConn()
		if err != nil {
			return "", 0, err
		}
		raw.Control(func(fd uintptr) { segment, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
		if err != nil {
			return "", 0, err
		}
	}
	answer, err = talkFor(c, 200*time.Millisecond)
	return answer, segment, err
}

// TestLabPassing: people's rules judge what is forwarded, and outlive changes,
// damage and a daemon that leaves; TCP agrees on segments that fit; a port for
// members is closed to others.
//
//	outer 10.7.0.9, 10.7.0.19 --- 10.7.0.1 node br0 172.30.0.1 (MTU 1300) --- 172.30.0.2 task
func TestLabPassing(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	outer, node, task := room(t, "outer"), room(t, "node"), room(t, "task")
	run(t, node,
		"ip link add up0 type veth peer name up0 netns "+filepath.Base(outer), "ip addr add 10.7.0.1/24 dev up0",
		"ip addr add fd07::1/64 dev up0 nodad", "ip link set up0 up",
		"ip link add br0 mtu 1300 type bridge", "ip addr add 172.30.0.1/24 dev br0", "ip link set br0 up",
		"ip link add p1 mtu 1300 type veth peer name eth0 mtu 1300 netns "+filepath.Base(task), "ip link set p1 master br0", "ip link set p1 up")
	run(t, outer, "ip addr add 10.7.0.9/24 dev up0", "ip addr add 10.7.0.19/24 dev up0",
		"ip addr add fd07::9/64 dev up0 nodad", "ip addr add fd07::19/64 dev up0 nodad", "ip link set up0 up")
	run(t, task, "ip addr add 172.30.0.2/24 dev eth0", "ip link set eth0 up", "ip route add default via 172.30.0.1")
	echo(t, task, "[::]:80")
	echo(t, node, "[::]:4789")
	d := nft.New()
	wish := lb.Translation{Namespace: node, Passing: []string{"br0", "lbx"},
		Members:  &lb.Members{Port: 4789, Addrs: []netip.Addr{netip.MustParseAddr("10.7.0.9"), netip.MustParseAddr("fd07::9")}},
		Forwards: []lb.Forward{{Protocol: lb.TCP, Port: 8080, To: netip.MustParseAddrPort("172.30.0.2:80"), Name: "web"}}}
	translate(t, d, wish)

	_, segment, err := askAs(outer, "tcp", "10.7.0.19", "10.7.0.1:8080")
	if err != nil || segment > 1300-40 {
		t.Errorf("segments of %d bytes over links of 1300, %v", segment, err)
	}
	run(t, node, "nft add rule inet shoal_nat user meta l4proto tcp ct original proto-dst 8080 ct original ip saddr != 10.7.0.9 drop")
	judged := func(when string) {
		t.Helper()
		if _, _, err := askAs(outer, "tcp", "10.7.0.9", "10.7.0.1:8080"); err != nil {
			t.Errorf("%s: whom the rule lets in gets no answer: %v", when, err)
		}
		if _, _, err := askAs(outer, "tcp", "10.7.0.19", "10.7.0.1:8080"); err == nil {
			t.Errorf("%s: whom the rule keeps out gets an answer", when)
		}
		for _, row := range []struct {
			from, to string
			in       bool
		}{{"10.7.0.9", "10.7.0.1:4789", true}, {"10.7.0.19", "10.7.0.1:4789", false}, {"fd07::9", "[fd07::1]:4789", true}, {"fd07::19", "[fd07::1]:4789", false}} {
			if _, _, err := askAs(outer, "udp", row.from, row.to); err == nil != row.in {
				t.Errorf("%s: %s to the members' port: %v, let in should be %t", when, row.from, err, row.in)
			}
		}
	}
	judged("at first")
	if text := list(t, node); !strings.Contains(text, `"lbx"`) {
		t.Errorf("people cannot read the links' names:\n%s", text)
	}
	if flows := tracking(t, node, "-p", "udp", "--dport", "4789"); flows != "" {
		t.Errorf("what members send is tracked: %s", flows)
	}
	wish.Forwards = append(wish.Forwards, lb.Forward{Protocol: lb.TCP, Port: 8081, To: netip.MustParseAddrPort("172.30.0.2:80"), Name: "more"})
	translate(t, d, wish)
	judged("after a change")
	for _, damage := range []string{"nft flush chain inet shoal_nat passing", "nft flush chain inet shoal_nat forward", "nft flush set inet shoal_nat links",
		"nft flush chain inet shoal_nat members", "nft flush chain inet shoal_nat untracked", "nft add element inet shoal_nat members4 { 10.7.0.19 }", "nft flush chain inet shoal_nat output"} {
		run(t, node, damage)
		if n := translate(t, nft.New(), wish); n == 0 {
			t.Errorf("%s: nothing was healed", damage)
		}
		judged("after " + damage)
	}
	run(t, node, "nft add set inet shoal_nat user_offices { type ipv4_addr ; }")
	if n := translate(t, nft.New(), wish); n != 0 {
		t.Errorf("a set of people's is taken for damage: %d changed", n)
	}
	wish.Members = nil
	translate(t, d, wish)
	if _, _, err := askAs(outer, "udp", "10.7.0.19", "10.7.0.1:4789"); err != nil {
		t.Errorf("without members the port is closed: %v", err)
	}

	translate(t, d, lb.Translation{Namespace: node})
	if left := list(t, node); !strings.Contains(left, "proto-dst 8080") || strings.Contains(left, "hook") {
		t.Errorf("with people's rules this is left:\n%s", left)
	}
	translate(t, d, wish)
	run(t, node, "nft flush chain inet shoal_nat user")
	translate(t, d, lb.Translation{Namespace: node})
	if left := list(t, node); left != "" {
		t.Errorf("without people's rules this is left:\n%s", left)
	}
}

// tracking is what conntrack(8) lists of the flows that a namespace tracks.
func tracking(t *testing.T, ns string, chosen ...string) string {
	t.Helper()
	var out []byte
	if err := netns.Do(ns, func() (err error) {
		out, err = exec.Command("conntrack", append([]string{"-L"}, chosen...)...).Output()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func list(t *testing.T, ns string) string {
	t.Helper()
	var out []byte
	if err := netns.Do(ns, func() (err error) {
		out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
		return err
	}); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}
