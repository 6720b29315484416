//go:build lab

package nft_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"

	"shoal/bench/need"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
)

// TestLabBoundForwards: a port that is taken at chosen addresses is closed at the
// others.
//
//	outer 10.7.0.9 --- 10.7.0.1, 10.7.0.2 node 172.30.0.1 --- 172.30.0.2 task
func TestLabBoundForwards(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	outer, node, task := room(t, "outer"), room(t, "node"), room(t, "task")
	run(t, node, "ip link add up0 type veth peer name up0 netns "+filepath.Base(outer), "ip addr add 10.7.0.1/24 dev up0",
		"ip addr add 10.7.0.2/24 dev up0", "ip addr add fd07::1/64 dev up0 nodad", "ip addr add fd07::2/64 dev up0 nodad", "ip link set up0 up",
		"ip link add t0 type veth peer name eth0 netns "+filepath.Base(task), "ip addr add 172.30.0.1/24 dev t0", "ip addr add fd30::1/64 dev t0 nodad", "ip link set t0 up")
	run(t, outer, "ip addr add 10.7.0.9/24 dev up0", "ip addr add fd07::9/64 dev up0 nodad", "ip link set up0 up")
	run(t, task, "ip addr add 172.30.0.2/24 dev eth0", "ip addr add fd30::2/64 dev eth0 nodad", "ip link set eth0 up",
		"ip route add default via 172.30.0.1", "ip route add default via fd30::1")
	echo(t, task, "[::]:80")
	forward := func(at, to string) lb.Forward {
		return lb.Forward{Protocol: lb.TCP, Port: 8080, At: netip.MustParseAddr(at), To: netip.MustParseAddrPort(to), Name: "web"}
	}
	const four, six = "172.30.0.2:80", "[fd30::2]:80"
	wish := lb.Translation{Namespace: node, Forwards: []lb.Forward{forward("10.7.0.1", four), forward("127.0.0.1", four), forward("fd07::2", six)}}
	d := nft.New()
	check := func(open map[string]bool) {
		t.Helper()
		for to, isOpen := range open {
			for _, from := range []string{outer, node} {
				if from == outer && to == "127.0.0.1:8080" {
					continue
				}
				_, err := ask(from, "tcp", to)
				for range 5 { // the link's neighbours may not know each other yet
					if !errors.Is(err, syscall.EHOSTUNREACH) {
						break
					}
					_, err = ask(from, "tcp", to)
				}
				if isOpen != (err == nil) || err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("%s from %s: %v, open is %t", to, filepath.Base(from), err, isOpen)
				}
			}
		}
	}
	translate(t, d, wish)
	check(map[string]bool{"10.7.0.1:8080": true, "10.7.0.2:8080": false, "[fd07::1]:8080": false, "[fd07::2]:8080": true, "127.0.0.1:8080": true})
	wish.Forwards = []lb.Forward{forward("10.7.0.2", four)}
	translate(t, d, wish)
	check(map[string]bool{"10.7.0.1:8080": false, "10.7.0.2:8080": true, "[fd07::2]:8080": false, "127.0.0.1:8080": false})
	wish.Forwards = []lb.Forward{forward("10.7.0.2", six)}
	if _, err := d.Translate(context.Background(), wish); err == nil {
		t.Error("families are mixed")
	}
}
