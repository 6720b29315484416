package keys

import (
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate/orchestratetest"
)

func node(name string, state swarm.NodeState, encrypts bool, settled uint64) *api.Node {
	n := &api.Node{Tunnel: api.Tunnel{Settled: settled}}
	n.Description.Hostname, n.Status.State = name, state
	if encrypts {
		n.Capabilities.Encryption = []string{api.WireGuard}
	}
	return n
}

func TestPlan(t *testing.T) {
	begun := time.Unix(1_800_000_000, 0).UTC()
	settled := []*api.Node{
		node("h1", swarm.NodeStateReady, true, 8), node("h2", swarm.NodeStateReady, true, 8),
		node("old", swarm.NodeStateReady, false, 0), node("dead", swarm.NodeStateDown, true, 3),
	}
	behind := append(slices.Clone(settled), node("h3", swarm.NodeStateReady, true, 7))
	one, two := api.KeyEpochs{Current: 8, Floor: 8, Since: begun}, api.KeyEpochs{Current: 8, Floor: 7, Since: begun}
	tests := []struct {
		name  string
		have  api.KeyEpochs
		after time.Duration
		nodes []*api.Node
		want  api.KeyEpochs // have itself where nothing is done
		wake  time.Duration
	}{
		{"a new cluster", api.KeyEpochs{}, 0, nil, api.KeyEpochs{Current: 1, Floor: 1, Since: begun}, 0},
		{"not yet due", one, time.Hour, settled, one, Period},
		{"due", one, Period, settled, api.KeyEpochs{Current: 9, Floor: 8, Since: begun.Add(Period)}, 0},
		{"a node still sends under the old keys", two, time.Hour, behind, two, 0},
		{"all settled, but in grace", two, time.Second, settled, two, Grace},
		{"all settled", two, Grace, settled, api.KeyEpochs{Current: 8, Floor: 8, Since: begun}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &api.Cluster{TunnelKeys: tt.have}
			p := Plan(begun.Add(tt.after), orchestratetest.Nodes(c, tt.nodes...))
			got := tt.have
			if len(p.Ops) == 1 {
				got = p.Ops[0].Object.(*api.Cluster).TunnelKeys
			}
			if len(p.Ops) > 1 || got != tt.want || (got == tt.have) != (len(p.Ops) == 0) {
				t.Errorf("%d operations, epochs %+v, want %+v", len(p.Ops), got, tt.want)
			}
			if want := begun.Add(tt.wake); tt.wake == 0 != p.Wake.IsZero() || tt.wake != 0 && !p.Wake.Equal(want) {
				t.Errorf("wakes at %s, want %s", p.Wake, want)
			}
			if c.TunnelKeys != tt.have {
				t.Error("the input was changed")
			}
		})
	}
	if p := Plan(begun, orchestratetest.Nodes(nil)); len(p.Ops) != 0 || !p.Wake.IsZero() {
		t.Errorf("without a cluster: %+v", p)
	}
	if got := Waiting(behind, 8); !slices.Equal(got, []string{"h3"}) {
		t.Errorf("waits for %v", got)
	}
}
