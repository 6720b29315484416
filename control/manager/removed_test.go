package manager

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/join"
	"shoal/control/rpc"
)

// worker adds a worker and returns what it calls managers with.
func (g *group) worker(id, founder string) *rpc.Client {
	g.Helper()
	n := &api.Node{Number: 9}
	n.ID, n.Spec.Role, n.Spec.Availability = id, swarm.NodeRoleWorker, swarm.NodeAvailabilityActive
	if err := g.all[founder].Propose(g.ctx(10*time.Second), []api.Op{api.Create(n)}); err != nil {
		g.Fatal(err)
	}
	csr, key, err := ca.NewRequest()
	if err != nil {
		g.Fatal(err)
	}
	cert, err := g.root.Issue(csr, ca.Identity{NodeID: id, Role: swarm.NodeRoleWorker, ClusterID: clusterID}, time.Now(), 24*time.Hour)
	if err != nil {
		g.Fatal(err)
	}
	creds, err := ca.NewCredentials(key, cert, g.root.CertPEM())
	if err != nil {
		g.Fatal(err)
	}
	client := rpc.NewClient(ca.NewSource(creds), nil)
	g.Cleanup(client.Close)
	return client
}

// TestARemovedNodeIsRefused: its certificate is good for none of the routes that are
// there for workers, and not to get another one.
func TestARemovedNodeIsRefused(t *testing.T) {
	g := newGroup(t, "m1")
	m := g.all["m1"]
	g.until("it leads", m.upToDate.Load)
	client := g.worker("w1", "m1")
	if _, err := join.Renew(g.ctx(5*time.Second), client, []string{m.addr}, g.root.CertPEM()); err != nil {
		t.Fatalf("before its removal: %v", err)
	}
	if err := m.Propose(g.ctx(5*time.Second), []api.Op{api.Delete(m.View().Node("w1"))}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/renew", "/dispatch/session", "/dispatch/report", "/dispatch/attach", "/dispatch/detach"} {
		err := client.Call(g.ctx(5*time.Second), m.addr, "POST", path, struct{}{}, nil)
		if api.KindOf(err) != api.Forbidden || !strings.Contains(err.Error(), "node w1 is not a member of the cluster") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestANewLeaderGivesNoCertificateBeforeItIsUpToDate: it may not know yet of a removal.
func TestANewLeaderGivesNoCertificateBeforeItIsUpToDate(t *testing.T) {
	g := newGroup(t, "m1")
	m := g.all["m1"]
	g.until("it leads", func() bool { return m.ruling() == nil })
	m.upToDate.Store(false)
	var elsewhere *rpc.NotLeaderError
	if err := m.ruling(); !errors.As(err, &elsewhere) || api.KindOf(err) != api.Unavailable {
		t.Errorf("behind: %v", err)
	}
	client := g.worker("w1", "m1")
	if err := client.Call(g.ctx(5*time.Second), m.addr, "POST", "/renew", struct{}{}, nil); api.KindOf(err) != api.Unavailable {
		t.Errorf("renews: %v", err)
	}
}
