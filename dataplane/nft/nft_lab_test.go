//go:build lab

package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"shoal/bench/need"
	"shoal/dataplane/lb"
	"shoal/dataplane/lb/lbtest"
	"shoal/dataplane/nft"
	"shoal/overlay/netns"
)

// slow is how much more patience an emulated machine needs.
func slow() int {
	if os.Getenv("SHOAL_VM") != "" {
		return 4
	}
	return 1
}

// nftCommand runs nft(8) in a namespace.
func nftCommand(t *testing.T, ns string, args ...string) {
	t.Helper()
	err := netns.Do(ns, func() error {
		if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("nft %q: %w: %s", args, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLabSuite(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	command := func(args ...string) func(*testing.T, string) {
		return func(t *testing.T, ns string) { nftCommand(t, ns, args...) }
	}
	lbtest.Suite(t, func(*testing.T) lb.Driver { return nft.New() }, lbtest.Caps{
		Packets:    true,
		SCTP:       func(t *testing.T) { need.Feature(t, "sctp", lbtest.SCTP()) },
		Forgets:    true,
		Algorithms: []lb.Algorithm{lb.WeightedRoundRobin, lb.SourceHash, lb.Maglev},
		Slow:       slow(),
		Trample: map[string]func(*testing.T, string){
			"table deleted":       command("delete", "table", "inet", nft.Table),
			"rules flushed":       command("flush", "table", "inet", nft.Table),
			"dispatch flushed":    command("flush", "chain", "inet", nft.Table, "fronts"),
			"fronts flushed":      command("flush", "map", "inet", nft.Table, "any4; flush map inet", nft.Table, "any6"),
			"strange set added":   command("add", "set", "inet", nft.Table, "svc-strange", "{ type ipv4_addr; }"),
			"strange chain added": command("add", "chain", "inet", nft.Table, "svc-strange"),
		},
	})
}

// TestLabStickyHeals: without the map of servers nobody would be sent anywhere. A
// person can list the table all the same.
func TestLabStickyHeals(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	ns := "/run/netns/dataplane-sticky"
	if err := netns.Create(ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(ns); err != nil {
			t.Error(err)
		}
	})
	wish := lb.Desired{Namespace: ns, Services: []lb.Service{{Front: lb.Front{Addr: netip.MustParseAddr("10.9.1.2")}, Sticky: time.Minute,
		Backends: []lb.Backend{{Addr: netip.MustParseAddr("10.9.1.11")}}}}}
	d := nft.New()
	for i, damage := range [][]string{{"list", "table", "inet", nft.Table}, {"flush", "map", "inet", nft.Table, "svc-10.9.1.2-server"}} {
		if i == 0 {
			if _, err := d.Apply(context.Background(), wish); err != nil {
				t.Fatal(err)
			}
		}
		nftCommand(t, ns, damage...)
		if n, err := d.Apply(context.Background(), wish); err != nil || (n > 0) != (i > 0) {
			t.Errorf("after %q: %d objects changed, %v", damage, n, err)
		}
	}
}
