//go:build lab

package nft_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

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
		Algorithms: []lb.Algorithm{lb.WeightedRoundRobin, lb.SourceHash},
		Slow:       slow(),
		Trample: map[string]func(*testing.T, string){
			"table deleted":       command("delete", "table", "inet", nft.Table),
			"rules flushed":       command("flush", "table", "inet", nft.Table),
			"dispatch flushed":    command("flush", "chain", "inet", nft.Table, "fronts"),
			"fronts flushed":      command("flush", "map", "inet", nft.Table, "any4; flush map inet", nft.Table, "any6"),
			"strange chain added": command("add", "chain", "inet", nft.Table, "svc-strange"),
		},
	})
}
