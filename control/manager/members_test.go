package manager

import (
	"slices"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/raftnode"
)

func aNode(id string, role swarm.NodeRole, status *swarm.ManagerStatus) *api.Node {
	n := &api.Node{}
	n.ID, n.Spec.Role, n.ManagerStatus = id, role, status
	return n
}

func TestManagerStatus(t *testing.T) {
	leads := &swarm.ManagerStatus{Leader: true, Addr: "a:1", Reachability: swarm.ReachabilityReachable}
	answers := &swarm.ManagerStatus{Addr: "a:1", Reachability: swarm.ReachabilityReachable}
	silent := &swarm.ManagerStatus{Addr: "a:1", Reachability: swarm.ReachabilityUnreachable}
	member := func(leader, reachable bool) *raftnode.Member {
		return &raftnode.Member{ID: "m1", Addr: "a:1", Leader: leader, Reachable: reachable}
	}
	tests := []struct {
		name   string
		have   *swarm.ManagerStatus
		member *raftnode.Member
		want   *swarm.ManagerStatus
		change bool
	}{
		{"a worker stays one", nil, nil, nil, false},
		{"a new manager", nil, member(false, true), answers, true},
		{"nothing new", answers, member(false, true), answers, false},
		{"it leads now", answers, member(true, true), leads, true},
		{"it leads no longer", leads, member(false, true), answers, true},
		{"it fell silent", answers, member(false, false), silent, true},
		{"it is out of the group", silent, nil, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := aNode("m1", swarm.NodeRoleManager, tt.have)
			var members []raftnode.Member
			if tt.member != nil {
				members = append(members, *tt.member)
			}
			ops := managerStatus([]*api.Node{before}, members)
			if (len(ops) == 1) != tt.change {
				t.Fatalf("operations are %+v", ops)
			}
			if before.ManagerStatus != tt.have {
				t.Error("the node that was read is changed")
			}
			if !tt.change {
				return
			}
			after := ops[0].Object.(*api.Node)
			if !same(after.ManagerStatus, tt.want) {
				t.Errorf("status is %+v, want %+v", after.ManagerStatus, tt.want)
			}
			if again := managerStatus([]*api.Node{after}, members); len(again) != 0 {
				t.Errorf("it does not come to rest: %+v", again)
			}
		})
	}
}

func TestDismissed(t *testing.T) {
	nodes := []*api.Node{aNode("m1", swarm.NodeRoleManager, nil), aNode("m2", swarm.NodeRoleWorker, nil)}
	members := []raftnode.Member{{ID: "m1"}, {ID: "m2"}, {ID: "m3"}}
	if got := dismissed(nodes, members); !slices.Equal(got, []string{"m2", "m3"}) {
		t.Errorf("dismissed %q", got)
	}
}
