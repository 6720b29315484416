package dispatch

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// pendingReport is a report that waits for its batch.
type pendingReport struct {
	ops  []api.Op
	done chan error // buffered
}

// Report takes a node's heartbeat and what it says of itself and its tasks. It
// returns once the statuses are committed. nodeID comes from the certificate: a
// report in another node's name, or about another node's task, is api.Forbidden
// and changes nothing; tasks that are gone are skipped.
func (d *Dispatcher) Report(ctx context.Context, nodeID string, r api.Report) error {
	t, err := d.leading()
	if err != nil {
		return err
	}
	view := d.cfg.Store.View()
	node, err := member(view, nodeID)
	if err != nil {
		return err
	}
	ops, err := taskOps(view, nodeID, r)
	if err != nil {
		return err
	}
	op, err := nodeOp(node, r.Node)
	if err != nil {
		return err
	}
	if r.Level <= view.Index() && (r.Beyond == nil || r.Beyond.Level <= view.Index()) { // or it is of a state that was lost
		t.levels.set(nodeID, level{r.Level, r.Beyond})
	}
	t.pulse.beat(nodeID, d.cfg.Now(), d.heartbeat(view))
	if op != nil {
		ops = append(ops, *op)
	}
	if len(ops) == 0 {
		return nil
	}
	return t.commit(ctx, ops)
}

func (t *term) commit(ctx context.Context, ops []api.Op) error {
	p := &pendingReport{ops: ops, done: make(chan error, 1)}
	select {
	case t.reports <- p:
	default:
		return api.Errorf(api.Unavailable, "more than %d reports wait to be committed", reportQueue)
	}
	select {
	case err := <-p.done:
		return err
	case <-t.ctx.Done():
		return t.notLeader()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// taskOps checks and translates what a node says of tasks.
func taskOps(view *store.View, nodeID string, r api.Report) ([]api.Op, error) {
	if r.NodeID != "" && r.NodeID != nodeID {
		return nil, api.Errorf(api.Forbidden, "node %s may not report for node %s", nodeID, r.NodeID)
	}
	var ops []api.Op
	for _, report := range r.Tasks {
		task := view.Task(report.TaskID)
		if task == nil {
			continue
		}
		if task.NodeID != nodeID {
			return nil, api.Errorf(api.Forbidden, "node %s may not report task %s, which is not assigned to it", nodeID, task.ID)
		}
		if api.Rank(report.Status.State) < api.Rank(task.Status.State) || reflect.DeepEqual(report.Status, task.Status) {
			continue
		}
		status := &api.Task{}
		status.ID = task.ID
		status.Status = report.Status
		ops = append(ops, api.Status(status))
	}
	return ops, nil
}

// nodeOp returns the operation that writes what a node says of itself and that
// it is ready, nil when the store knows all that.
func nodeOp(node *api.Node, r *api.NodeReport) (*api.Op, error) {
	next, part := *node, api.PartState
	next.Status.State = swarm.NodeStateReady
	next.DownSince = time.Time{}
	if node.Status.State != swarm.NodeStateReady {
		next.Status.Message = ""
	}
	if r != nil {
		part = api.PartReport
		if err := describe(&next, r); err != nil {
			return nil, err
		}
	}
	if reflect.DeepEqual(&next, node) {
		return nil, nil
	}
	op := api.NodeStatus(part, &next)
	return &op, nil
}

// describe leaves ManagerStatus alone: Raft knows it better than the node.
func describe(next *api.Node, r *api.NodeReport) error {
	next.Description = r.Description
	next.Status.Addr, next.Status.Message = r.Addr, r.Message
	next.DataPathAddr = netip.Addr{}
	if r.DataPathAddr != "" {
		addr, err := netip.ParseAddr(r.DataPathAddr)
		if err != nil {
			return api.Errorf(api.Invalid, "data path address of node %s: %w", next.ID, err)
		}
		next.DataPathAddr = addr
	}
	next.RaftAddr, next.Capabilities, next.Tunnel, next.GossipStep = r.RaftAddr, r.Capabilities, r.Tunnel, r.GossipStep
	return r.Tunnel.Check()
}

// batchReports gathers the operations of many reports into one proposal.
func (t *term) batchReports(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Canceled
		case first := <-t.reports:
			batch, ops := t.gather(ctx, first)
			err := t.cfg.Propose(ctx, ops)
			for _, p := range batch {
				p.done <- err
			}
		}
	}
}

// subject is what a status is about.
type subject struct {
	key
	part api.Part
}

// gather collects for as long as the window is open. Of several statuses of one
// subject the last one counts.
func (t *term) gather(ctx context.Context, first *pendingReport) ([]*pendingReport, []api.Op) {
	batch := []*pendingReport{first}
	latest := map[subject]api.Op{}
	note := func(p *pendingReport) {
		for _, op := range p.ops {
			latest[subject{keyOf(op.Object), op.Part}] = op
		}
	}
	note(first)
	window := time.NewTimer(batchWindow)
	defer window.Stop()
	for len(latest) < batchSize {
		select {
		case p := <-t.reports:
			batch = append(batch, p)
			note(p)
			continue
		case <-window.C:
		case <-ctx.Done():
		}
		break
	}
	keys := slices.SortedFunc(maps.Keys(latest), compareSubjects)
	ops := make([]api.Op, len(keys))
	for i, k := range keys {
		ops[i] = latest[k]
	}
	return batch, ops
}

func compareSubjects(a, b subject) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id), cmp.Compare(a.part, b.part))
}
