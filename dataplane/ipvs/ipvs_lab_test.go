//go:build lab

package ipvs_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"shoal/bench/need"
	"shoal/dataplane/ipvs"
	"shoal/dataplane/lb"
	"shoal/dataplane/lb/lbtest"
	"shoal/overlay/netns"
)

// slow is how much more patience an emulated machine needs.
func slow() int {
	if os.Getenv("SHOAL_VM") != "" {
		return 4
	}
	return 1
}

// command runs programs in a namespace, one after the other.
func command(lines ...[]string) func(*testing.T, string) {
	return func(t *testing.T, ns string) {
		t.Helper()
		for _, args := range lines {
			err := netns.Do(ns, func() error {
				if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
					return fmt.Errorf("%q: %w: %s", args, err, out)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestLabSuite(t *testing.T) {
	need.Feature(t, "ipvs", ipvs.Probe(context.Background()))
	lbtest.Suite(t, func(*testing.T) lb.Driver { return ipvs.New() }, lbtest.Caps{
		Packets:    true,
		SCTP:       func(t *testing.T) { need.Feature(t, "sctp", lbtest.SCTP()) },
		Algorithms: []lb.Algorithm{lb.WeightedRoundRobin, lb.LeastConn, lb.WeightedLeastConn, lb.SourceHash, lb.Maglev},
		Slow:       slow(),
		Trample: map[string]func(*testing.T, string){
			"services cleared": command([]string{"ipvsadm", "-C"}),
			"table deleted":    command([]string{"nft", "delete", "table", "inet", ipvs.Table}),
			"rules flushed":    command([]string{"nft", "flush", "table", "inet", ipvs.Table}),
			"marks flushed": command([]string{"nft", "flush", "map", "inet", ipvs.Table, "mark4"},
				[]string{"nft", "flush", "map", "inet", ipvs.Table, "mark6"}),
			"a stray service": command([]string{"ipvsadm", "-A", "-f", "77", "-s", "rr"}),
		},
	})
}
