package store

import (
	"strings"
	"testing"
	"time"

	"shoal/control/api"
)

// TestRemovalsAreCounted: the cluster knows how many nodes it lost, and the number of
// a lost one belongs to nobody until it is released.
func TestRemovalsAreCounted(t *testing.T) {
	s, index := New(), uint64(0)
	commit := func(ops ...api.Op) error {
		index++
		return s.Commit(index, time.Unix(1_800_000_000, 0), ops)
	}
	node := func(id string, number uint32) *api.Node {
		n := &api.Node{Number: number}
		n.ID = id
		return n
	}
	cluster := &api.Cluster{}
	cluster.ID, cluster.Spec.Name = "c", "default"
	if err := commit(api.Create(cluster), api.Create(node("a", 1)), api.Create(node("b", 2)), api.Create(node("none", 0))); err != nil {
		t.Fatal(err)
	}
	if err := commit(api.Delete(s.View().Node("b")), api.Delete(s.View().Node("none")), api.Delete(node("never", 7))); err != nil {
		t.Fatal(err)
	}
	c, retired := s.View().Cluster(), s.View().Retired()
	if c.Removals != 2 || c.Version.Index != index {
		t.Errorf("%d removals counted, at version %d", c.Removals, c.Version.Index)
	}
	if len(retired) != 1 || retired[0].Number != 2 {
		t.Fatalf("retired are %+v", retired)
	}
	if err := commit(api.Create(node("d", 2))); err == nil || !strings.Contains(err.Error(), "node number 2 of node d is not free yet") {
		t.Errorf("given at once: %v", err)
	}
	if err := commit(api.Release(index)); err != nil {
		t.Fatal(err)
	}
	if err := commit(api.Create(node("d", 2))); err != nil {
		t.Errorf("once it is free: %v", err)
	}
}
