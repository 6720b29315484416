package join

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/rpc"
	"shoal/control/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// cluster is managers on loopback that share one store.
type cluster struct {
	root            *ca.Root
	store           *store.Store
	worker, manager ca.Token
	mu              sync.Mutex
	index           uint64
	leader          string
	voters          map[string]string
	strangers       int // how many more calls meet a manager that lags behind
}

func newCluster() *cluster {
	root := must(ca.NewRoot(time.Now()))
	c := &cluster{root: root, store: store.New(), worker: ca.NewToken(root.Cert), manager: ca.NewToken(root.Cert), voters: map[string]string{}}
	obj := &api.Cluster{CACert: root.CertPEM(), CAKey: must(root.KeyPEM()), NextNodeNumber: 2}
	obj.ID, obj.Spec.Name = "c1", "default"
	obj.JoinTokens = swarm.JoinTokens{Worker: c.worker.Reveal(), Manager: c.manager.Reveal()}
	if err := c.propose(context.Background(), []api.Op{api.Create(obj)}); err != nil {
		panic(err)
	}
	return c
}

func (c *cluster) propose(_ context.Context, ops []api.Op) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	return c.store.Commit(c.index, time.Now(), ops)
}

// serve starts a manager; it leads when its address is c.leader.
func (c *cluster) serve(t *testing.T, nodeID string) string {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	addr := l.Addr().String()
	mux := rpc.NewMux(func(ca.Identity) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.strangers > 0 {
			c.strangers--
			return api.Errorf(api.Forbidden, "node not known yet")
		}
		return nil
	})
	(&Server{
		Store: c.store, Propose: c.propose, Now: time.Now,
		Leading: func() error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.leader == addr {
				return nil
			}
			return &rpc.NotLeaderError{Leader: c.leader}
		},
		AddVoter: func(_ context.Context, nodeID, addr string) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.voters[nodeID] = addr
			return nil
		},
	}).Register(mux)
	csr, key, err := ca.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert := must(c.root.Issue(csr, ca.Identity{NodeID: nodeID, Role: swarm.NodeRoleManager, ClusterID: "c1"}, time.Now(), 0))
	src := ca.NewSource(must(ca.NewCredentials(key, cert, c.root.CertPEM())))
	s := rpc.New(rpc.Config{Listener: l, Advertise: addr, Source: src, Handler: mux})
	t.Cleanup(func() { s.Close() })
	return addr
}

func TestJoinRenewVote(t *testing.T) {
	c := newCluster()
	c.leader = c.serve(t, "m1")
	follower := c.serve(t, "m2")
	ctx := t.Context()
	worker := must(Join(ctx, Request{Remotes: []string{follower}, Token: c.worker.Reveal(), Hostname: "h2", Availability: swarm.NodeAvailabilityDrain}))
	manager := must(Join(ctx, Request{Remotes: []string{c.leader}, Token: c.manager.Reveal(), Hostname: "h3"}))
	for i, creds := range []*ca.Credentials{worker, manager} {
		role := []swarm.NodeRole{swarm.NodeRoleWorker, swarm.NodeRoleManager}[i]
		node := c.store.View().Node(creds.Identity.NodeID)
		if node == nil || node.Number != uint32(2+i) || node.Spec.Role != role || creds.Identity.Role != role || creds.Identity.ClusterID != "c1" {
			t.Fatalf("%v is node %+v", creds, node)
		}
		if hostname := fmt.Sprint("h", 2+i); node.Description.Hostname != hostname || len(node.ID) != 25 {
			t.Errorf("node %s is called %s", node.ID, node.Description.Hostname)
		}
	}
	if a := c.store.View().Node(worker.Identity.NodeID).Spec.Availability; a != swarm.NodeAvailabilityDrain {
		t.Errorf("availability %s", a)
	}

	workerClient, managerClient := rpc.NewClient(ca.NewSource(worker), nil), rpc.NewClient(ca.NewSource(manager), nil)
	defer workerClient.Close()
	defer managerClient.Close()
	if err := BecomeVoter(ctx, workerClient, []string{follower}, "10.0.0.2:2377"); api.KindOf(err) != api.Forbidden {
		t.Errorf("a worker votes: %v", err)
	}
	for _, bad := range []string{"", "x", ":1", "h:99999"} {
		if err := BecomeVoter(ctx, managerClient, []string{c.leader}, bad); api.KindOf(err) != api.Invalid {
			t.Errorf("address %q: %v", bad, err)
		}
	}
	if err := BecomeVoter(ctx, managerClient, []string{follower}, "10.0.0.3:2377"); err != nil || c.voters[manager.Identity.NodeID] != "10.0.0.3:2377" {
		t.Errorf("voters %v, %v", c.voters, err)
	}

	c.voters, c.strangers = map[string]string{}, 2
	if err := BecomeVoter(ctx, managerClient, []string{follower, c.leader}, "10.0.0.3:2377"); err != nil || len(c.voters) != 1 {
		t.Errorf("at managers that lag behind: %v, %v", c.voters, err)
	}

	node := c.store.View().Node(worker.Identity.NodeID).Copy()
	node.Spec.Role = swarm.NodeRoleManager
	if err := c.propose(ctx, []api.Op{api.Update(node)}); err != nil {
		t.Fatal(err)
	}
	renewed := must(Renew(ctx, workerClient, []string{follower}, worker.RootPEM()))
	if renewed.Identity.Role != swarm.NodeRoleManager || renewed.Identity.NodeID != worker.Identity.NodeID {
		t.Errorf("renewed as %v", renewed)
	}
	if err := c.propose(ctx, []api.Op{api.Delete(node)}); err != nil {
		t.Fatal(err)
	}
	if _, err := Renew(ctx, workerClient, []string{follower}, worker.RootPEM()); api.KindOf(err) != api.Forbidden {
		t.Errorf("a removed node renews: %v", err)
	}
}

func TestJoinRefusals(t *testing.T) {
	c, other := newCluster(), newCluster()
	c.leader = c.serve(t, "m1")
	ctx := t.Context()
	for name, r := range map[string]struct {
		token string
		text  string
	}{
		"malformed":       {"SWMTKN-1-x", "invalid join token"},
		"rotated":         {ca.NewToken(c.root.Cert).Reveal(), "invalid join token"},
		"another cluster": {other.worker.Reveal(), ""},
	} {
		start := time.Now()
		_, err := Join(ctx, Request{Remotes: []string{c.leader}, Token: r.token})
		if err == nil || r.text != "" && err.Error() != r.text || r.text == "" && !errors.Is(err, ca.ErrPin) {
			t.Errorf("%s: %v", name, err)
		}
		if time.Since(start) > 3*time.Second {
			t.Errorf("%s: took %s", name, time.Since(start))
		}
	}
	if _, err := Join(ctx, Request{Remotes: []string{c.leader}, Token: c.worker.Reveal(), Availability: "asleep"}); api.KindOf(err) != api.Invalid {
		t.Errorf("availability: %v", err)
	}
	if n := len(c.store.View().Nodes()); n != 0 {
		t.Errorf("%d nodes were made", n)
	}
}

func TestJoinWaitsForALeaderAndGivesUp(t *testing.T) {
	c := newCluster()
	follower := c.serve(t, "m1")
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	if _, err := Join(ctx, Request{Remotes: []string{follower}, Token: c.worker.Reveal()}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a leader: %v", err)
	}
	go func() {
		time.Sleep(300 * time.Millisecond) // an election
		c.mu.Lock()
		c.leader = follower
		c.mu.Unlock()
	}()
	if _, err := Join(t.Context(), Request{Remotes: []string{"127.0.0.1:1", follower}, Token: c.worker.Reveal()}); err != nil {
		t.Error(err)
	}
}

// Many machines at once get different numbers; one that asks again stays itself.
func TestNumbersAreUnique(t *testing.T) {
	c := newCluster()
	s := &Server{Store: c.store, Propose: c.propose, Now: time.Now}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			csr, _, err := ca.NewRequest()
			if err != nil {
				t.Error(err)
			}
			for range 2 {
				if _, err := s.join(context.Background(), joinRequest{Token: c.worker.Reveal(), CSR: string(csr)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	nodes := c.store.View().Nodes()
	numbers := map[uint32]bool{}
	for _, n := range nodes {
		numbers[n.Number] = true
	}
	if len(nodes) != 8 || len(numbers) != 8 {
		t.Errorf("%d nodes with %d numbers", len(nodes), len(numbers))
	}
}

// TestNumbersAreUsedAgain: once every number has been given, a node gets one of a node
// that was removed, but not before the nodes have confirmed that they know it no more.
func TestNumbersAreUsedAgain(t *testing.T) {
	c := newCluster()
	s := &Server{Store: c.store, Propose: c.propose, Now: time.Now}
	enter := func() (*api.Node, error) {
		t.Helper()
		csr, _, err := ca.NewRequest()
		if err != nil {
			t.Fatal(err)
		}
		id, err := ca.NodeIDOf(csr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.join(t.Context(), joinRequest{Token: c.worker.Reveal(), CSR: string(csr)})
		return c.store.View().Node(id), err
	}
	first, err := enter()
	if err != nil {
		t.Fatal(err)
	}
	full := c.store.View().Cluster().Copy()
	full.NextNodeNumber = api.NodeNumberMax + 1
	ops := []api.Op{api.Update(full)}
	for number := uint32(1); number <= api.NodeNumberMax; number++ {
		if number != first.Number {
			n := &api.Node{Number: number}
			n.ID = fmt.Sprint("n", number)
			ops = append(ops, api.Create(n))
		}
	}
	must := func(ops ...api.Op) {
		t.Helper()
		if err := c.propose(t.Context(), ops); err != nil {
			t.Fatal(err)
		}
	}
	must(ops...)
	refused := func(when string) {
		t.Helper()
		if _, err := enter(); api.KindOf(err) != api.Unavailable {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("all are in use")
	must(api.Delete(c.store.View().Node("n500")), api.Delete(c.store.View().Node("n70")))
	refused("nodes may know the number of the removed ones")
	must(api.Release(c.store.View().Index()))
	for _, want := range []uint32{70, 500} {
		if n, err := enter(); err != nil || n.Number != want {
			t.Errorf("number %v instead of %d: %v", n, want, err)
		}
	}
	refused("all are in use again")
}

// TestDataPathsOfOneFamily: a machine that could not exchange tasks' traffic with
// the others is told so before it is a node.
func TestDataPathsOfOneFamily(t *testing.T) {
	c := newCluster()
	c.leader = c.serve(t, "m1")
	first := &api.Node{Number: 1, DataPathAddr: netip.MustParseAddr("10.0.0.1")}
	first.ID, first.Description.Hostname = "m1", "h1"
	if err := c.propose(t.Context(), []api.Op{api.Create(first)}); err != nil {
		t.Fatal(err)
	}
	for addr, refused := range map[string]bool{"10.0.0.2": false, "::ffff:10.0.0.3": false, "fd00::2": true} {
		_, err := Join(t.Context(), Request{Remotes: []string{c.leader}, Token: c.worker.Reveal(), DataPathAddr: netip.MustParseAddr(addr)})
		if refused != (api.KindOf(err) == api.Invalid) || !refused && err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if _, err := Join(t.Context(), Request{Remotes: []string{c.leader}, Token: c.worker.Reveal()}); err != nil {
		t.Errorf("one that does not say: %v", err)
	}
}
