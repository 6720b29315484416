//go:build lab

package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"shoal/bench/need"
	"shoal/dataplane/nft"
	"shoal/overlay/netns"
)

// everyVariable asks for a crash after every single change, from the number that it
// is set to on; else some of them are tried, in all phases.
const everyVariable = "SHOAL_CRASH_EVERY"

// someStep is how many changes lie between the crashes that are tried otherwise.
const someStep = 23

// node is the node under test: a host of its own.
type node struct {
	*testing.T
	dir, host string
	// slowest is the longest that a whole run took, from its start until the kernel
	// was right, traced as it was.
	slowest time.Duration
}

// TestCrashAnywhere kills the daemon after its first, second, … change of the
// kernel, while it builds its network, while it changes it, and while it leaves.
// The next daemon must make of what it finds exactly what it makes of nothing.
func TestCrashAnywhere(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	dir := t.TempDir()
	n := &node{T: t, dir: dir, host: filepath.Join(dir, "host")}
	need.Feature(t, "netns", netns.Create(n.host))
	t.Cleanup(func() {
		_, err := netns.Sweep(filepath.Join(dir, "netns"), func(string) bool { return false })
		if err = errors.Join(err, netns.Delete(n.host)); err != nil {
			t.Error(err)
		}
	})
	n.do(func() error {
		out, err := exec.Command("sh", "-ec", `ip link set lo up; ip link add under type bridge
			ip addr add 192.0.2.1/24 dev under; ip link set under up`).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	empty := n.state()
	want, total := map[string]string{}, map[string]int{}
	phases := []string{build, change, leave}
	for _, phase := range phases {
		total[phase] = n.run(phase, 0)
		want[phase] = n.state()
	}
	if want[leave] != empty {
		t.Errorf("a node that leaves leaves behind:\n%s\ninstead of\n%s", want[leave], empty)
	}
	t.Logf("changes of the kernel: %v", total)
	first, step, crashes := 1, someStep, 0
	if from, err := strconv.Atoi(os.Getenv(everyVariable)); err == nil {
		first, step = from, 1
	}
	// Each round is a whole life with one crash in each phase.
	for at := first; at <= slices.Max([]int{total[build], total[change], total[leave]}); at += step {
		for _, phase := range phases {
			if at <= total[phase] {
				n.run(phase, at)
				crashes++
			}
			n.run(phase, 0)
			if got := n.state(); got != want[phase] {
				t.Fatalf("%s after a crash at change %d:\n%s", phase, at, difference(want[phase], got))
			}
		}
	}
	t.Logf("%d crashes survived, put right within %s of the next start", crashes, n.slowest.Round(time.Millisecond))
}

// do runs f in the host's namespace, on one thread.
func (n *node) do(f func() error) {
	n.Helper()
	if err := netns.Do(n.host, func() error {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		return f()
	}); err != nil {
		n.Fatal(err)
	}
}

func (n *node) run(phase string, killAfter int) (changes int) {
	n.Helper()
	n.do(func() (err error) {
		began := time.Now()
		changes, _, err = run(phase, n.dir, killAfter)
		if killAfter == 0 {
			n.slowest = max(n.slowest, time.Since(began))
		}
		return err
	})
	if phase == leave { // the next life hands out the same addresses
		if err := os.Remove(filepath.Join(n.dir, "gateway.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
			n.Fatal(err)
		}
	}
	return changes
}

// show prints what a namespace has, without what differs from run to run.
const show = `ip -o link show | sed 's/^[0-9]*: //; s/@[^ :]*//; s/ link\/.*//; s/ qdisc.*//; s/,LOWER_UP//; s/NO-CARRIER,//' | sort
ip -o addr show | sed 's/^[0-9]*: //; s/valid_lft.*//' | grep -v 'fe80::' | sort
ip route show table all proto 83 | sort
ip rule show | sort
ip neigh show nud permanent | sort
bridge fdb show | grep -E 'self permanent|static' | grep -E ' dst | static' | sed 's/link-netnsid [0-9]*//' | sort
nft list tables | sort | while read -r table; do echo; nft list $table | sed 's/^table .*{/&\n/; s/^}/\n}/'; done | sed 's/counter packets [0-9]* bytes [0-9]*/counter/'
[ ! -e /proc/net/ip_vs ] || ipvsadm -Sn | sort`

// state is everything that the node has in the kernel.
func (n *node) state() string {
	n.Helper()
	var out strings.Builder
	made, err := netns.List(filepath.Join(n.dir, "netns"))
	if err != nil {
		n.Fatal(err)
	}
	for _, path := range append([]string{n.host}, made...) {
		if err := netns.Do(path, func() error {
			shown, err := exec.Command("sh", "-c", show).Output() // iproute2 grumbles about peers that go
			// The chains of a table are in the order in which they came, which means nothing.
			blocks := slices.Sorted(slices.Values(strings.Split(string(hardware.ReplaceAll(shown, []byte("MAC"))), "\n\n")))
			fmt.Fprintf(&out, "== %s\n%s\n", filepath.Base(path), strings.Join(blocks, "\n\n"))
			return err
		}); err != nil {
			n.Fatalf("%v: %s", err, out.String())
		}
	}
	return out.String()
}

// hardware matches hardware addresses that the kernel has drawn by lot.
var hardware = regexp.MustCompile(`\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b`)

// difference lists the lines that one text has more often than the other.
func difference(want, got string) string {
	count := map[string]int{}
	for line := range strings.Lines(got) {
		count[line]++
	}
	for line := range strings.Lines(want) {
		count[line]--
	}
	out := []string{"(without an entry below, the order alone differs)"}
	for line, n := range count {
		if n != 0 {
			out = append(out, fmt.Sprintf("%+d: %s", n, strings.TrimSpace(line)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
