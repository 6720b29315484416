package manager

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/genesis"
	"shoal/control/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const clusterID = "cluster"

// group is a few managers of one cluster over loopback, with real certificates.
type group struct {
	*testing.T
	root *ca.Root
	dir  string
	mu   sync.Mutex
	all  map[string]*one
}

// one is one manager and what it needs.
type one struct {
	*Manager
	addr   string
	source *ca.Source
	client *rpc.Client
	stop   func()
}

func (g *group) ctx(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	g.Cleanup(cancel)
	return ctx
}

func newGroup(t *testing.T, ids ...string) *group {
	t.Helper()
	root, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	g := &group{T: t, root: root, dir: t.TempDir(), all: map[string]*one{}}
	t.Cleanup(func() {
		for _, m := range g.all {
			m.stop()
		}
	})
	for _, id := range ids {
		g.start(id)
	}
	if err := g.all[ids[0]].Bootstrap(g.ctx(10*time.Second), g.founding(ids[0])); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids[1:] {
		g.join(id, ids[0])
	}
	return g
}

func (g *group) founding(id string) []api.Op {
	g.Helper()
	key, err := g.root.KeyPEM()
	if err != nil {
		g.Fatal(err)
	}
	ops, err := genesis.State(swarm.InitRequest{}, genesis.Founder{
		ClusterID: clusterID, NodeID: id, IngressID: "ingress", RootCertPEM: g.root.CertPEM(), RootKeyPEM: key,
		Tokens:    swarm.JoinTokens{Worker: ca.NewToken(g.root.Cert).Reveal(), Manager: ca.NewToken(g.root.Cert).Reveal()},
		GossipKey: make([]byte, 32), Report: api.NodeReport{DataPathAddr: "127.0.0.1", RaftAddr: g.all[id].addr},
	})
	if err != nil {
		g.Fatal(err)
	}
	return ops
}

// start starts a manager, or starts it again with the directory and address it had.
func (g *group) start(id string) *one {
	g.Helper()
	m := g.all[id]
	if m == nil {
		m = &one{addr: "127.0.0.1:0", source: ca.NewSource(g.credentials(id))}
	}
	listener, err := net.Listen("tcp", m.addr)
	if err != nil {
		g.Fatal(err)
	}
	m.addr, m.client = listener.Addr().String(), rpc.NewClient(m.source, nil)
	m.Manager, err = Start(Config{
		NodeID: id, Dir: filepath.Join(g.dir, id), Listener: listener, Advertise: m.addr, Source: m.source, Client: m.client,
		Election: 200 * time.Millisecond, Now: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		g.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	manager, client := m.Manager, m.client
	go func() { done <- manager.Run(ctx) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			g.Errorf("manager %s ended with %v", id, err)
		}
		if err := manager.Close(); err != nil {
			g.Errorf("manager %s: %v", id, err)
		}
		client.Close()
	})
	g.all[id] = m
	return m
}

func (g *group) credentials(id string) *ca.Credentials {
	g.Helper()
	csr, key, err := ca.NewRequest()
	if err != nil {
		g.Fatal(err)
	}
	identity := ca.Identity{NodeID: id, Role: swarm.NodeRoleManager, ClusterID: clusterID}
	cert, err := g.root.Issue(csr, identity, time.Now(), 24*time.Hour)
	if err != nil {
		g.Fatal(err)
	}
	creds, err := ca.NewCredentials(key, cert, g.root.CertPEM())
	if err != nil {
		g.Fatal(err)
	}
	return creds
}

// join makes a running manager one of the cluster's.
func (g *group) join(id, founder string) {
	g.Helper()
	n := &api.Node{Number: uint32(len(g.all[founder].View().Nodes()) + 1), RaftAddr: g.all[id].addr}
	n.ID, n.Spec.Role, n.Spec.Availability = id, swarm.NodeRoleManager, swarm.NodeAvailabilityActive
	n.Status.State = swarm.NodeStateReady
	ctx := g.ctx(10 * time.Second)
	if err := g.all[founder].Propose(ctx, []api.Op{api.Create(n)}); err != nil {
		g.Fatal(err)
	}
	if err := g.all[id].JoinRaft(ctx, []string{g.all[founder].addr}); err != nil {
		g.Fatal(err)
	}
}

func (g *group) until(what string, cond func() bool) {
	g.Helper()
	for deadline := time.Now().Add(15 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.Fatalf("waited in vain for: %s", what)
		}
	}
}

// leader waits for the one that leads.
func (g *group) leader(of ...string) (id string) {
	g.Helper()
	g.until("a leader", func() bool {
		for _, id = range of {
			if g.all[id].Leads() {
				return true
			}
		}
		return false
	})
	return id
}

func others(of []string, not string) (out []string) {
	for _, id := range of {
		if id != not {
			out = append(out, id)
		}
	}
	return out
}

func aNetwork(name string) []api.Op {
	n := &api.Network{}
	n.ID, n.Spec.Name = api.NewID(), name
	n.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay"}
	return []api.Op{api.Create(n)}
}

func (m *one) knows(name string) bool {
	for _, n := range m.View().Networks() {
		if n.Spec.Name == name {
			return true
		}
	}
	return false
}

func TestThreeManagers(t *testing.T) {
	ids := []string{"m1", "m2", "m3"}
	g := newGroup(t, ids...)
	leader := g.leader(ids...)
	follower := others(ids, leader)[0]

	if err := g.all[follower].Propose(g.ctx(5*time.Second), aNetwork("through-a-follower")); err != nil {
		t.Fatal(err)
	}
	if !g.all[follower].knows("through-a-follower") {
		t.Error("a follower does not know what it has proposed")
	}
	err := g.all[follower].Propose(g.ctx(5*time.Second), aNetwork("through-a-follower"))
	own := g.all[leader].Propose(g.ctx(5*time.Second), aNetwork("through-a-follower"))
	if err == nil || own == nil || err.Error() != own.Error() || api.KindOf(err) != api.KindOf(own) {
		t.Errorf("refused by the follower with %v, by the leader with %v", err, own)
	}
	for _, id := range ids {
		if err := g.all[id].CaughtUp(g.ctx(5 * time.Second)); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		g.until(id+" knows who manages", func() bool { return statusOf(g.all[id], ids) })
	}
	if peers := g.all[follower].Peers(); len(peers) != 3 {
		t.Errorf("peers are %+v", peers)
	}

	g.all[leader].stop()
	began := time.Now()
	if err := g.all[follower].Propose(g.ctx(10*time.Second), aNetwork("without-the-old-leader")); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s to find another leader", took)
	}
	if g.all[leader].knows("without-the-old-leader") {
		t.Error("a manager that is stopped goes on learning")
	}

	again := g.start(leader)
	if err := again.CaughtUp(g.ctx(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if !again.knows("without-the-old-leader") {
		t.Error("caught up without what was committed before the start")
	}
}

// statusOf says whether the manager sees all as reachable and exactly one leading.
func statusOf(m *one, ids []string) bool {
	leading := 0
	for _, id := range ids {
		n := m.View().Node(id)
		if n == nil || n.ManagerStatus == nil || n.ManagerStatus.Reachability != swarm.ReachabilityReachable {
			return false
		}
		if n.ManagerStatus.Leader {
			leading++
		}
	}
	return leading == 1
}

func TestQuorumLost(t *testing.T) {
	ids := []string{"m1", "m2", "m3"}
	g := newGroup(t, ids...)
	leader := g.leader(ids...)
	gone := others(ids, leader)
	var wg sync.WaitGroup
	for _, id := range gone {
		wg.Go(g.all[id].stop)
	}
	wg.Wait()
	var err error
	g.until("the loss is noticed", func() bool {
		err = g.all[leader].Propose(g.ctx(time.Second), aNetwork("nobody-hears"))
		return err != nil && strings.Contains(err.Error(), "no quorum")
	})
	if api.KindOf(err) != api.Unavailable || !strings.Contains(err.Error(), "1 of 3 managers answer") {
		t.Errorf("says %v", err)
	}
	g.all[leader].stop()
	alone := g.start(leader)
	if err := alone.CaughtUp(g.ctx(300 * time.Millisecond)); api.KindOf(err) != api.Unavailable {
		t.Errorf("caught up with nobody: %v", err)
	}
}

func TestDemotedManagerIsDismissed(t *testing.T) {
	ids := []string{"m1", "m2", "m3"}
	g := newGroup(t, ids...)
	leader := g.leader(ids...)
	stays := others(ids, leader)
	n := g.all[leader].View().Node(leader).Copy() // the leader itself is to go
	n.Spec.Role = swarm.NodeRoleWorker
	if err := g.all[leader].Propose(g.ctx(5*time.Second), []api.Op{api.Update(n)}); err != nil {
		t.Fatal(err)
	}
	next := g.leader(stays...)
	g.until("it is out of the group", func() bool { return len(g.all[next].Members()) == 2 })
	g.until("its status says so", func() bool { return g.all[next].View().Node(leader).ManagerStatus == nil })
	var reply accepted
	err := g.all[leader].client.Call(g.ctx(5*time.Second), g.all[next].addr, "POST", indexPath, struct{}{}, &reply)
	if want := fmt.Sprintf("node %s is no longer a manager", leader); api.KindOf(err) != api.Forbidden || err.Error() != want {
		t.Errorf("a demoted manager is told %v", err)
	}
}

func TestLeaveRaft(t *testing.T) {
	ids := []string{"m1", "m2", "m3"}
	g := newGroup(t, ids...)
	leader := g.leader(ids...)
	follower := others(ids, leader)[0]
	if err := g.all[follower].LeaveRaft(g.ctx(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	g.until("the follower is gone", func() bool { return len(g.all[leader].Members()) == 2 })
	if err := g.all[leader].Propose(g.ctx(5*time.Second), aNetwork("with-two")); err != nil {
		t.Error(err)
	}
}
