package presence

import (
	"slices"
	"testing"

	"shoal/control/api"
	"shoal/overlay/gossip"
)

// TestMissedManagers: a manager is told of when it begins to be missed, and again
// only when it has been there meanwhile; workers and strangers never.
func TestMissedManagers(t *testing.T) {
	manager, worker := &api.Node{RaftAddr: "10.77.0.1:2377"}, &api.Node{}
	manager.ID, worker.ID = "m", "w"
	nodes := []*api.Node{manager, worker}
	var missed missed
	for i, step := range []struct {
		states map[string]gossip.MemberState
		want   []string
	}{
		{map[string]gossip.MemberState{"m": gossip.Alive, "w": gossip.Alive}, nil},
		{map[string]gossip.MemberState{"m": gossip.Failed, "w": gossip.Alive}, []string{"10.77.0.1:2377"}},
		{map[string]gossip.MemberState{"m": gossip.Failed, "w": gossip.Failed, "x": gossip.Failed}, nil},
		{map[string]gossip.MemberState{"m": gossip.Alive, "w": gossip.Failed}, nil},
		{map[string]gossip.MemberState{"m": gossip.Failed}, []string{"10.77.0.1:2377"}},
		{map[string]gossip.MemberState{"m": gossip.Left}, nil},
	} {
		var members []gossip.Member
		for id, state := range step.states {
			members = append(members, gossip.Member{NodeID: id, State: state})
		}
		if got := missed.managers(members, nodes); !slices.Equal(got, step.want) {
			t.Errorf("step %d: told of %q, want %q", i, got, step.want)
		}
	}
}
