package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/control/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcp is a raft.StreamLayer over loopback TCP.
type tcp struct{ net.Listener }

func (tcp) Dial(addr raft.ServerAddress, wait time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(addr), wait)
}

func listen(t testing.TB, addr string) tcp {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return tcp{l}
}

// group is a few managers on this machine.
type group struct {
	testing.TB
	base  Config
	dir   string
	addrs map[string]string
	nodes map[string]*Node
}

func newGroup(t testing.TB, base Config, ids ...string) *group {
	t.Helper()
	g := &group{TB: t, base: base, dir: t.TempDir(), addrs: map[string]string{}, nodes: map[string]*Node{}}
	t.Cleanup(func() {
		for id := range g.nodes {
			g.stop(id)
		}
	})
	for _, id := range ids {
		g.start(id)
	}
	if err := g.nodes[ids[0]].Bootstrap(); err != nil {
		t.Fatal(err)
	}
	g.leader()
	for _, id := range ids[1:] {
		if err := g.leader().AddVoter(g.ctx(), id, g.addrs[id]); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func (g *group) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	g.Cleanup(cancel)
	return ctx
}

func (g *group) start(id string) *Node {
	g.Helper()
	addr := g.addrs[id]
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	cfg := g.base
	cfg.Stream = listen(g, addr)
	g.addrs[id] = cfg.Stream.Addr().String()
	cfg.ID, cfg.AdvertiseAddr, cfg.Dir, cfg.Store = id, g.addrs[id], filepath.Join(g.dir, id), store.New()
	cfg.Name = func(id string) string { return "host-" + id }
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	if cfg.Election == 0 {
		cfg.Election = 150 * time.Millisecond
	}
	n, err := Open(cfg)
	if err != nil {
		g.Fatal(err)
	}
	g.nodes[id] = n
	return n
}

func (g *group) stop(id string) {
	g.Helper()
	if err := g.nodes[id].Shutdown(); err != nil {
		g.Errorf("stop %s: %v", id, err)
	}
	delete(g.nodes, id)
}

// until waits for a condition, with a deadline.
func (g *group) until(what string, ok func() bool) {
	g.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.Fatalf("waited in vain: %s", what)
		}
	}
}

// leader waits until one running member leads and all others know it.
func (g *group) leader() *Node {
	g.Helper()
	var leader *Node
	g.until("a leader that all know", func() bool {
		for _, n := range g.nodes {
			if n.IsLeader() {
				leader = n
			}
		}
		for _, n := range g.nodes {
			if id, _ := n.Leader(); leader == nil || id != leader.cfg.ID && len(n.servers()) > 0 {
				return false
			}
		}
		return leader.IsLeader()
	})
	return leader
}

func (g *group) follower() *Node {
	leader := g.leader()
	for _, n := range g.nodes {
		if n != leader {
			return n
		}
	}
	g.Fatal("there is no follower")
	return nil
}

func service(i int) *api.Service {
	return &api.Service{Service: swarm.Service{
		ID:   fmt.Sprintf("service%04d", i),
		Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: fmt.Sprintf("web%d", i)}},
	}}
}

// propose makes service i through n, or through whoever leads if the busy
// machine has cost n its leadership. It returns an index that holds the service.
func (g *group) propose(n *Node, i int) uint64 {
	g.Helper()
	for try := 0; ; try++ {
		index, err := n.Propose(g.ctx(), time.Unix(int64(i), 0), []api.Op{api.Create(service(i))})
		var elsewhere *NotLeaderError
		switch {
		case err == nil:
			return index
		case api.KindOf(err) == api.Conflict && try > 0: // the try before was committed after all
			return n.cfg.Store.View().Index()
		case try == 10 || api.KindOf(err) != api.Unavailable && !errors.As(err, &elsewhere):
			g.Fatal(err)
		}
		n = g.leader()
	}
}

func (g *group) has(n *Node, from, to int) {
	g.Helper()
	for i := from; i < to; i++ {
		if n.cfg.Store.View().Service(service(i).ID) == nil {
			g.Fatalf("%s has lost service %d", n.cfg.ID, i)
		}
	}
}

func TestWritesReachEveryManager(t *testing.T) {
	g := newGroup(t, Config{}, "a", "b", "c")
	var last uint64
	for i := range 20 {
		last = g.propose(g.leader(), i)
	}
	for _, n := range g.nodes {
		if err := n.WaitApplied(g.ctx(), last); err != nil {
			t.Fatal(err)
		}
		g.has(n, 0, 20)
	}
	for _, m := range g.leader().Members() {
		if !m.Reachable {
			t.Errorf("%s does not count as reachable", m.ID)
		}
	}
	if err := g.leader().Barrier(g.ctx()); err != nil {
		t.Error(err)
	}
	if _, err := g.leader().Propose(g.ctx(), time.Unix(1, 0), []api.Op{api.Create(service(3))}); api.KindOf(err) != api.Conflict {
		t.Errorf("a service made twice: %v", err)
	}
}

func TestFollowerNamesTheLeader(t *testing.T) {
	g := newGroup(t, Config{}, "a", "b", "c")
	_, err := g.follower().Propose(g.ctx(), time.Unix(1, 0), []api.Op{api.Create(service(1))})
	not, ok := err.(*NotLeaderError)
	if !ok || not.ID != g.leader().cfg.ID || not.Addr != g.addrs[not.ID] {
		t.Fatalf("got %v", err)
	}
}

func TestLeaderDiesAndNothingIsLost(t *testing.T) {
	g := newGroup(t, Config{}, "a", "b", "c")
	for i := range 10 {
		g.propose(g.leader(), i)
	}
	dead := g.leader().cfg.ID
	g.stop(dead)
	last := g.propose(g.leader(), 10)
	g.has(g.leader(), 0, 11)
	g.until("the dead manager to be noticed", func() bool {
		for _, m := range g.leader().Members() {
			if m.ID == dead {
				return !m.Reachable
			}
		}
		return false
	})
	back := g.start(dead)
	if err := back.WaitApplied(g.ctx(), last); err != nil {
		t.Fatal(err)
	}
	g.has(back, 0, 11)
	g.until("the manager to count again", func() bool {
		for _, m := range g.leader().Members() {
			if !m.Reachable {
				return false
			}
		}
		return true
	})
}

func TestAllRestartAtOnce(t *testing.T) {
	g := newGroup(t, Config{}, "a", "b", "c")
	for i := range 10 {
		g.propose(g.leader(), i)
	}
	for _, id := range []string{"a", "b", "c"} {
		g.stop(id)
	}
	for _, id := range []string{"a", "b", "c"} {
		g.start(id)
	}
	g.propose(g.leader(), 10)
	g.has(g.leader(), 0, 11)
	if err := g.leader().Bootstrap(); api.KindOf(err) != api.Conflict {
		t.Errorf("a second bootstrap: %v", err)
	}
}

func TestMajorityLost(t *testing.T) {
	g := newGroup(t, Config{}, "a", "b", "c")
	leader := g.leader()
	g.propose(leader, 0)
	var gone []string
	for _, id := range []string{"a", "b", "c"} {
		if id != leader.cfg.ID {
			g.stop(id)
			gone = append(gone, fmt.Sprintf("host-%s (%s)", id, g.addrs[id]))
		}
	}
	g.until("the leader to step down", func() bool { return !leader.IsLeader() })
	start := time.Now()
	_, err := leader.Propose(g.ctx(), time.Unix(1, 0), []api.Op{api.Create(service(1))})
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the refusal took %s", took)
	}
	want := "the cluster has no quorum: 1 of 3 managers answer; " + strings.Join(gone, " and ") + " are missing"
	if err == nil || err.Error() != want || api.KindOf(err) != api.Unavailable {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	for _, id := range []string{"a", "b", "c"} {
		if g.nodes[id] == nil {
			g.start(id)
			break
		}
	}
	g.propose(g.leader(), 2)
	g.has(g.leader(), 0, 1)
}

func TestSnapshotCarriesALateManager(t *testing.T) {
	g := newGroup(t, Config{SnapshotEntries: 20, SnapshotCheck: 20 * time.Millisecond}, "a", "b")
	for i := range 100 {
		g.propose(g.leader(), i)
	}
	g.until("a snapshot that cuts the log", func() bool {
		first, err := g.leader().log.FirstIndex()
		return err == nil && first > 10
	})
	late := g.start("c")
	if err := g.leader().AddVoter(g.ctx(), "c", g.addrs["c"]); err != nil {
		t.Fatal(err)
	}
	if err := late.WaitApplied(g.ctx(), g.propose(g.leader(), 100)); err != nil {
		t.Fatal(err)
	}
	g.has(late, 0, 101)
	g.stop("c")
	g.has(restored(g, "c"), 0, 101)
}

// restored starts a member again and waits until it has caught up.
func restored(g *group, id string) *Node {
	n := g.start(id)
	if err := n.WaitApplied(g.ctx(), g.propose(g.leader(), 1000)); err != nil {
		g.Fatal(err)
	}
	return n
}

func TestHandOver(t *testing.T) {
	g := newGroup(t, Config{}, "a", "b", "c")
	old := g.leader()
	g.propose(old, 0)
	if err := old.TransferLeadership(g.ctx()); err != nil {
		t.Fatal(err)
	}
	g.until("another leader", func() bool { return g.leader() != old })
	g.propose(g.leader(), 1)
}

func TestRemoval(t *testing.T) {
	g := newGroup(t, Config{}, "a", "b")
	a := g.nodes["a"]
	if err := a.RemoveServer(g.ctx(), "b"); err != nil {
		t.Fatal(err)
	}
	if m := a.Members(); len(m) != 1 || m[0].ID != "a" || !m[0].Leader {
		t.Errorf("members are %+v", m)
	}
	if err := a.RemoveServer(g.ctx(), "a"); api.KindOf(err) != api.Invalid {
		t.Errorf("the last one removed: %v", err)
	}
	if err := a.AddVoter(g.ctx(), "x", "127.0.0.1:1"); api.KindOf(err) != api.Unavailable {
		t.Errorf("a manager added that does not answer: %v", err)
	}
}

func TestNoClusterYet(t *testing.T) {
	g := &group{TB: t, dir: t.TempDir(), addrs: map[string]string{}, nodes: map[string]*Node{}}
	n := g.start("a")
	defer g.stop("a")
	_, err := n.Propose(g.ctx(), time.Unix(1, 0), nil)
	if api.KindOf(err) != api.Unavailable || !strings.Contains(err.Error(), "belongs to no cluster yet") {
		t.Errorf("got %v", err)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	g := newGroup(t, Config{}, "a")
	cfg := g.nodes["a"].cfg
	cfg.Stream = listen(t, "127.0.0.1:0")
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "is another process using it?") {
		t.Errorf("a second member in one directory: %v", err)
	}
}

// TestLostBeforeCommit proposes just after the others are gone: whether or not
// the leader has noticed, the answer comes and says why.
func TestLostBeforeCommit(t *testing.T) {
	g := newGroup(t, Config{}, "a", "b", "c")
	leader := g.leader()
	for id := range g.nodes {
		if id != leader.cfg.ID {
			g.stop(id)
		}
	}
	_, err := leader.Propose(g.ctx(), time.Unix(1, 0), []api.Op{api.Create(service(1))})
	if api.KindOf(err) != api.Unavailable || !strings.Contains(err.Error(), "no quorum: 1 of 3 managers answer") {
		t.Errorf("got %v", err)
	}
}
