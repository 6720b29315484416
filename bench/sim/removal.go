package sim

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"

	"shoal/control/api"
	"shoal/overlay/gossip"
)

// removeWorker removes a worker whose daemon goes on running, with its certificate and
// all that it knew. It must be out of everything; then its host joins as another node.
func removeWorker(ctx context.Context, s *Script) (func(context.Context) error, error) {
	h := s.some(s.workers())
	s.Log("node rm --force of %s", h.name)
	s.c.watch.withdrawAll(h)
	s.c.watch.disturbed(h)
	again := func(ctx context.Context) error { return h.enterAgain(ctx) }
	if err := s.op.RemoveNode(ctx, h.id); err != nil {
		return again, err
	}
	err := s.until(ctx, "a removed node runs tasks", func() bool {
		list, err := h.machine.runtime.List(ctx)
		return err == nil && len(list) == 0
	})
	return again, errors.Join(err, s.until(ctx, "a removed node takes part in the gossip", func() bool { return s.c.apart(h) }))
}

// RemoveNode removes a node that runs.
func (o *Operator) RemoveNode(ctx context.Context, nodeID string) error {
	return o.insist(ctx, "remove node "+nodeID, func(ctx context.Context, h *Host) error {
		err := ask(ctx, h, http.MethodDelete, "/nodes/"+nodeID+"?force=true", nil, nil)
		if r, ok := err.(*refusal); ok && r.status == http.StatusNotFound { // an earlier try went through
			return nil
		}
		return err
	})
}

// apart says whether no other host has a removed one among its members, or any record
// of it.
func (c *Cluster) apart(removed *Host) bool {
	return !slices.ContainsFunc(c.Hosts(), func(h *Host) bool {
		n, _ := h.Daemon().rooms()
		return h != removed && (n == nil || slices.Contains(n.Table().Owners(), removed.id) ||
			slices.ContainsFunc(n.Gossip().Members(), func(m gossip.Member) bool { return m.NodeID == removed.id }))
	})
}

// enterAgain makes a host that is no node any more a new one.
func (h *Host) enterAgain(ctx context.Context) error {
	h.PowerCut()
	if err := os.RemoveAll(h.dir); err != nil {
		return err
	}
	h.epoch = 0
	h.c.underlay.On(h.addr)
	h.c.watch.disturbed(h)
	return h.enter(ctx, h.c.tokens.Worker, []string{h.c.hosts[0].control()})
}

// Keys complains unless all running hosts gossip with the one key that no removed node
// has had.
func (c *Cluster) Keys() (out complaints) {
	leader := c.Leader()
	if leader == nil {
		return out
	}
	cluster := managerView(leader).Cluster()
	change := cluster.GossipChange
	if change.Phase != api.GossipSettled || len(cluster.GossipKeys) != 1 || change.Removals != cluster.Removals {
		out.add("the gossip keys are being changed: %+v after %d removals", change, cluster.Removals)
	}
	for _, h := range c.Hosts() {
		if n, _ := h.Daemon().rooms(); n != nil && n.GossipStep() != change.Step {
			out.add("%s has made step %d of the gossip keys, not %d", h.name, n.GossipStep(), change.Step)
		}
	}
	return out
}
