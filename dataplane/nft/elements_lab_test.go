//go:build lab

package nft_test

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/nftables"

	"shoal/bench/need"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
	"shoal/overlay/netns"
)

// TestLabPortsComeAndGo: while ports are published and taken back, every client of one
// that stays gets through, and no rule is written anew.
func TestLabPortsComeAndGo(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	host := room(t, "ports")
	run(t, host, "ip link add far type veth peer name near", "ip addr add 192.0.2.1/24 dev far", "ip link set far up", "ip link set near up")
	echo(t, host, "192.0.2.1:7000")
	to := netip.MustParseAddrPort("192.0.2.1:7000")
	stays := lb.Forward{Protocol: lb.TCP, Port: 80, To: to, Name: "stays"}
	comes := lb.Forward{Protocol: lb.TCP, Port: 81, To: to, Name: "comes"}
	d := nft.New()
	with := func(forwards ...lb.Forward) lb.Translation {
		return lb.Translation{Namespace: host, Forwards: forwards}
	}
	translate(t, d, with(stays))
	before := firstHandle(t, host)

	var over atomic.Bool
	var client sync.WaitGroup
	client.Go(func() {
		for made := 0; !over.Load(); made++ {
			if _, err := ask(host, "tcp", "192.0.2.1:80"); err != nil {
				t.Errorf("after %d connections: %v", made, err)
				return
			}
		}
	})
	for range 50 {
		translate(t, d, with(stays, comes))
		translate(t, d, with(stays))
	}
	over.Store(true)
	client.Wait()
	if after := firstHandle(t, host); after != before {
		t.Errorf("%d is the handle of the first rule, it was %d", after, before)
	}
	translate(t, d, with(comes))
	if _, err := ask(host, "tcp", "192.0.2.1:81"); err != nil {
		t.Errorf("the port that came: %v", err)
	}
	if _, err := ask(host, "tcp", "192.0.2.1:80"); err == nil {
		t.Error("the port that went still leads somewhere")
	}
}

// firstHandle is what the kernel calls the first rule that leads ports to servers.
func firstHandle(t *testing.T, ns string) (handle uint64) {
	t.Helper()
	err := netns.Do(ns, func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		table := &nftables.Table{Name: nft.NATTable, Family: nftables.TableFamilyINet}
		rules, err := c.GetRules(table, &nftables.Chain{Name: "output", Table: table})
		if err == nil && len(rules) > 0 {
			handle = rules[0].Handle
		}
		return err
	})
	if err != nil || handle == 0 {
		t.Fatalf("the first rule has handle %d (%v)", handle, err)
	}
	return handle
}
