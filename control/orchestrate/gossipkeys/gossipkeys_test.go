package gossipkeys

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate/orchestratetest"
)

func node(name string, state swarm.NodeState, step uint64) *api.Node {
	n := &api.Node{GossipStep: step}
	n.Description.Hostname, n.Status.State = name, state
	return n
}

// ring is a list of keys, one letter each.
func ring(letters string) (keys [][]byte) {
	for _, l := range letters {
		keys = append(keys, []byte(string(l)))
	}
	return keys
}

func letters(keys [][]byte) string { return string(slices.Concat(keys...)) }

func TestPlan(t *testing.T) {
	begun := time.Unix(1_800_000_000, 0).UTC()
	made := []*api.Node{node("h1", swarm.NodeStateReady, 7), node("dead", swarm.NodeStateDown, 2), node("new", swarm.NodeStateUnknown, 0)}
	behind := append(slices.Clone(made), node("h2", swarm.NodeStateReady, 6))
	at := func(phase api.GossipPhase, removals uint64) api.GossipChange {
		return api.GossipChange{Step: 7, Phase: phase, Since: begun, Removals: removals}
	}
	tests := []struct {
		name     string
		keys     string
		have     api.GossipChange
		removals uint64
		after    time.Duration
		nodes    []*api.Node
		wantKeys string // "" where nothing is done
		phase    api.GossipPhase
		counted  uint64
		wake     time.Duration
	}{
		{"a new cluster begins to count", "A", api.GossipChange{}, 0, 0, nil, "A", api.GossipSettled, 0, 0},
		{"a cluster that lost nodes before it counted changes next", "A", api.GossipChange{}, 3, 0, nil, "A", api.GossipSettled, 0, 0},
		{"not due", "A", at(api.GossipSettled, 1), 1, time.Hour, made, "", "", 0, Period},
		{"not due, though a node is behind", "A", at(api.GossipSettled, 1), 1, time.Hour, behind, "", "", 0, Period},
		{"due", "A", at(api.GossipSettled, 1), 1, Period, made, "AN", api.GossipInstall, 1, 0},
		{"a node was removed", "A", at(api.GossipSettled, 1), 2, time.Second, made, "AN", api.GossipInstall, 2, 0},
		{"a node cannot read the new key yet", "AB", at(api.GossipInstall, 1), 1, time.Hour, behind, "", "", 0, 0},
		{"it has not waited for long", "AB", at(api.GossipInstall, 1), 1, time.Second, behind, "", "", 0, Patience},
		{"all can read it", "AB", at(api.GossipInstall, 1), 1, 0, made, "BA", api.GossipUse, 1, 0},
		{"a node sends under the old key", "BA", at(api.GossipUse, 1), 1, time.Hour, behind, "", "", 0, 0},
		{"packets may be under way", "BA", at(api.GossipUse, 1), 1, time.Second, made, "", "", 0, Grace},
		{"nobody sends under the old key", "BA", at(api.GossipUse, 1), 1, Grace, made, "B", api.GossipSettled, 1, 0},
		{"a node was removed meanwhile: first to the end", "AB", at(api.GossipInstall, 1), 2, 0, made, "BA", api.GossipUse, 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &api.Cluster{GossipKeys: ring(tt.keys), GossipChange: tt.have, Removals: tt.removals}
			now := begun.Add(tt.after)
			p := Plan(now, orchestratetest.Nodes(c, tt.nodes...), func() []byte { return []byte("N") })
			if tt.wantKeys == "" {
				if want := begun.Add(tt.wake); len(p.Ops) != 0 || tt.wake == 0 != p.Wake.IsZero() || tt.wake != 0 && !p.Wake.Equal(want) {
					t.Errorf("%d operations, wakes at %s, want %s", len(p.Ops), p.Wake, want)
				}
				return
			}
			if len(p.Ops) != 1 {
				t.Fatalf("%d operations", len(p.Ops))
			}
			got := p.Ops[0].Object.(*api.Cluster)
			want := api.GossipChange{Step: tt.have.Step + 1, Phase: tt.phase, Since: now, Removals: tt.counted}
			if letters(got.GossipKeys) != tt.wantKeys || got.GossipChange != want {
				t.Errorf("keys %s, %+v, want %s, %+v", letters(got.GossipKeys), got.GossipChange, tt.wantKeys, want)
			}
			if letters(c.GossipKeys) != tt.keys || c.GossipChange != tt.have {
				t.Error("the input was changed")
			}
		})
	}
	if p := Plan(begun, orchestratetest.Nodes(nil), nil); len(p.Ops) != 0 || !p.Wake.IsZero() {
		t.Errorf("without a cluster: %+v", p)
	}
	if got := Waiting(behind, 7); !slices.Equal(got, []string{"h2"}) {
		t.Errorf("waits for %v", got)
	}
}

// TestLate: who is waited for is told of a change, and after a while is late.
func TestLate(t *testing.T) {
	begun := time.Unix(1_800_000_000, 0).UTC()
	nodes := []*api.Node{node("h3", swarm.NodeStateReady, 6), node("h2", swarm.NodeStateReady, 6), node("h1", swarm.NodeStateReady, 7), node("dead", swarm.NodeStateDown, 0)}
	for _, row := range []struct {
		phase api.GossipPhase
		after time.Duration
		waits string
		late  string
	}{
		{api.GossipSettled, time.Hour, "", ""}, {api.GossipInstall, Patience - 1, "h2 h3", ""},
		{api.GossipInstall, Patience, "h2 h3", "h2 h3"}, {api.GossipUse, Patience, "h2 h3", "h2 h3"},
	} {
		c := &api.Cluster{GossipChange: api.GossipChange{Step: 7, Phase: row.phase, Since: begun}}
		waits, late := For(c, nodes), Late(begun.Add(row.after), orchestratetest.Nodes(c, nodes...))
		if strings.Join(waits, " ") != row.waits || strings.Join(late, " ") != row.late {
			t.Errorf("%q after %s: waits for %v, late are %v", row.phase, row.after, waits, late)
		}
	}
	if For(nil, nodes) != nil || Late(begun, orchestratetest.Nodes(nil)) != nil {
		t.Error("without a cluster somebody is waited for")
	}
}

// TestEverybodyReadsEverybody walks through changes with nodes that follow at a pace
// of their own: at no moment does a ready node send under a key that another ready
// node does not have.
func TestEverybodyReadsEverybody(t *testing.T) {
	now := time.Unix(1_800_000_000, 0).UTC()
	c := &api.Cluster{GossipKeys: ring("A")}
	nodes := []*api.Node{node("h1", swarm.NodeStateReady, 0), node("h2", swarm.NodeStateReady, 0), node("h3", swarm.NodeStateReady, 0)}
	held := []string{"A", "A", "A"}
	next := byte('A')
	for turn := range 400 {
		if turn%90 == 60 {
			c.Removals++
		}
		p := Plan(now, orchestratetest.Nodes(c, nodes...), func() []byte { next++; return []byte{next} })
		if len(p.Ops) > 0 {
			c = p.Ops[0].Object.(*api.Cluster)
		}
		i := turn * 7 % 3 // who follows now
		held[i], nodes[i].GossipStep = letters(c.GossipKeys), c.GossipChange.Step
		for a, from := range held {
			for b, to := range held {
				if !slices.Contains([]byte(to), from[0]) {
					t.Fatalf("turn %d: h%d sends under %c, h%d has %s", turn, a+1, from[0], b+1, to)
				}
			}
		}
		now = now.Add(time.Second)
	}
	if next != 'A'+4 || len(c.GossipKeys) != 1 {
		t.Errorf("%d new keys after 4 removals, and %s at the end", next-'A', letters(c.GossipKeys))
	}
}
