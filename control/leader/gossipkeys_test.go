package leader

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"shoal/control/api"
	"shoal/control/orchestrate/gossipkeys"
)

// followKeys lets every node make the cluster's present step.
func (m *model) followKeys() {
	for _, n := range m.view().Nodes() {
		n := n.Copy()
		n.GossipStep = m.view().Cluster().GossipChange.Step
		m.commit(api.Status(n))
	}
}

// TestARemovedNodesKeyIsReplaced: the leader begins a change with a node's removal, at
// each step waits for the nodes that are left, and a new leader goes on where the old
// one was. A new epoch of tunnel keys, which is in the same object, does not get lost.
func TestARemovedNodesKeyIsReplaced(t *testing.T) {
	m := newModel(t, 3)
	c := m.view().Cluster().Copy()
	c.GossipKeys = [][]byte{[]byte("old")}
	m.commit(api.Update(c))
	m.plan()
	keys := func() (list string) {
		for _, k := range m.view().Cluster().GossipKeys {
			list += string(k) + ","
		}
		return list
	}
	if got := m.view().Cluster(); got.GossipChange.Step != 1 || got.TunnelKeys.Current != 1 || keys() != "old," {
		t.Fatalf("begins with %s %+v, tunnels %+v", keys(), got.GossipChange, got.TunnelKeys)
	}
	m.commit(api.Delete(m.view().Node("n3")))
	m.plan()
	fresh := string(m.view().Cluster().GossipKeys[1])
	if keys() != "old,"+fresh+"," {
		t.Fatalf("after the removal: %s", keys())
	}
	m.plan()
	if m.view().Cluster().GossipChange.Phase != api.GossipInstall {
		t.Fatalf("did not wait for the nodes: %s", keys())
	}
	m.followKeys()
	m.elect()
	m.plan()
	if keys() != fresh+",old," {
		t.Fatalf("all can read the new key: %s", keys())
	}
	m.followKeys()
	m.plan()
	if keys() != fresh+",old," {
		t.Fatalf("within the grace: %s", keys())
	}
	m.clock.at = m.clock.at.Add(gossipkeys.Grace)
	m.plan()
	if keys() != fresh+"," {
		t.Fatalf("at the end: %s", keys())
	}
	m.followKeys()
	m.clock.at = m.clock.at.Add(time.Hour)
	m.plan()
	if keys() != fresh+"," {
		t.Errorf("an hour later: %s", keys())
	}
	m.clock.at = m.clock.at.Add(gossipkeys.Period)
	m.plan()
	if got := m.view().Cluster(); len(got.GossipKeys) != 2 || got.TunnelKeys.Current != 2 {
		t.Errorf("both kinds of keys are due: %s, tunnels %+v", keys(), got.TunnelKeys)
	}
}

// TestALateChangeIsLogged: once for each step that waits, with the nodes' names.
func TestALateChangeIsLogged(t *testing.T) {
	m := newModel(t, 3)
	c := m.view().Cluster().Copy()
	c.GossipKeys = [][]byte{[]byte("old")}
	m.commit(api.Update(c))
	m.plan()
	var log strings.Builder
	m.s.Logger = slog.New(slog.NewTextHandler(&log, nil))
	m.commit(api.Delete(m.view().Node("n3")))
	waits := func(after time.Duration, times int, nodes string) {
		t.Helper()
		m.clock.at = m.clock.at.Add(after)
		m.plan()
		if got := strings.Count(log.String(), "a change of the gossip keys waits"); got != times || !strings.Contains(log.String(), nodes) {
			t.Errorf("logged %d times, want %d with %s:\n%s", got, times, nodes, log.String())
		}
	}
	waits(0, 0, "")
	if next := m.s.next(); !next.Equal(m.clock.at.Add(gossipkeys.Patience)) {
		t.Errorf("looks again at %s", next)
	}
	waits(gossipkeys.Patience-time.Second, 0, "")
	waits(time.Second, 1, `nodes="[n1 n2]"`)
	first := m.view().Node("n1").Copy()
	first.GossipStep = m.view().Cluster().GossipChange.Step
	m.commit(api.Status(first))
	waits(time.Hour, 1, "")
	m.followKeys()
	waits(0, 1, "")
	waits(gossipkeys.Patience, 2, "phase=use")
}
