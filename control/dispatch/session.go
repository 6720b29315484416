package dispatch

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"shoal/control/api"
	"shoal/control/store"
)

// session is one node's stream. All fields but wake and end are the hub's.
type session struct {
	nodeID   string
	networks map[string]bool // that the node uses
	sent     map[key]uint64  // what the node has, in which change
	dirt     dirt
	asked    uint64 // the revision that the node was asked to confirm
	wake     chan struct{}
	end      context.CancelCauseFunc
}

// dirt is what may have changed since the last message.
type dirt struct {
	all, own, cluster bool
	nodes             map[string]bool
}

var errReplaced = errors.New("the node has opened another session")

// mark notes what is to be looked at again. The caller holds the hub's mu.
func (s *session) mark(what func(*dirt)) {
	what(&s.dirt)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Session streams a node's assignments to send until ctx or leadership ends, send
// fails, or the node opens another session. The first message is the whole set.
// A node that is not in the store is api.NotFound, one that is removed meanwhile is
// told that nothing is its own any more and gets api.Forbidden, and a manager that does not
// lead answers with rpc.NotLeaderError.
func (d *Dispatcher) Session(ctx context.Context, nodeID string, send func(api.Assignment) error) error {
	t, err := d.leading()
	if err != nil {
		return err
	}
	select {
	case <-t.hub.ready:
	case <-t.ctx.Done():
		return d.notLeader()
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := member(d.cfg.Store.View(), nodeID); err != nil {
		return err
	}
	inner, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(t.ctx, func() { end(d.notLeader()) })()
	s := t.hub.open(nodeID, end)
	defer t.hub.close(s)
	err = t.stream(inner, s, send)
	if ctx.Err() != nil {
		t.pulse.hasten(nodeID, d.cfg.Now(), d.heartbeat(d.cfg.Store.View()))
	}
	return err
}

// stream sends what is dirty until something ends it.
func (t *term) stream(ctx context.Context, s *session, send func(api.Assignment) error) error {
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.wake:
		}
		if !first {
			select { // let changes gather
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(settle):
			}
		}
		message, removed := t.hub.flush(s, t.cfg.Store)
		if removed {
			return t.dismiss(s, message, send)
		}
		if first {
			message.Full, message.Heartbeat = true, t.heartbeat(t.cfg.Store.View())
		}
		if !first && len(message.Ops) == 0 && !message.Confirm {
			continue
		}
		if err := send(message); err != nil {
			return err
		}
	}
}

// dismiss says a removed node's last word, if it has heard any before.
func (t *term) dismiss(s *session, last api.Assignment, send func(api.Assignment) error) error {
	removed := api.Errorf(api.Forbidden, "node %s was removed from the cluster", s.nodeID)
	if len(last.Ops) == 0 {
		return removed
	}
	return errors.Join(removed, send(last))
}

// open registers a session and ends the node's earlier one.
func (h *hub) open(nodeID string, end context.CancelCauseFunc) *session {
	s := &session{
		nodeID: nodeID, networks: map[string]bool{}, sent: map[key]uint64{},
		dirt: dirt{all: true, nodes: map[string]bool{}}, wake: make(chan struct{}, 1), end: end,
	}
	s.wake <- struct{}{}
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.sessions[nodeID]; old != nil {
		old.end(errReplaced)
	}
	h.sessions[nodeID] = s
	return s
}

func (h *hub) close(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[s.nodeID] == s {
		delete(h.sessions, s.nodeID)
	}
}

// flush returns the operations that bring the node up to date with the store. One
// that was removed is to keep no task, and hears nothing else any more: no address,
// no name and no key.
func (h *hub) flush(s *session, from *store.Store) (message api.Assignment, removed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	view := from.View() // under mu, so that no flush sees an older one than the last
	message.Revision = view.Index()
	if view.Node(s.nodeID) == nil {
		message.Ops = h.takeBack(s)
		return message, true
	}
	todo := s.dirt
	s.dirt = dirt{nodes: map[string]bool{}}
	if s.asked < h.asked {
		message.Confirm, s.asked = true, view.Index()
	}
	emit := func(k key, obj api.Object) { message.Ops = h.difference(message.Ops, s, k, obj) }
	if cluster := view.Cluster(); cluster != nil && (todo.all || todo.cluster) {
		emit(keyOf(cluster), cluster)
	}
	for _, id := range dirtyNodes(view, s, todo) {
		k := key{api.KindNode, id}
		emit(k, find(view, k))
	}
	if todo.all || todo.own {
		w := wantsOf(view, s.nodeID, h.mesh, h.ingress)
		s.networks = w.networks
		for _, k := range s.candidates(w.objects) {
			emit(k, w.objects[k])
		}
	}
	return message, false
}

// takeBack lists the ends of the tasks that a removed node has, and of itself.
func (h *hub) takeBack(s *session) (ops []api.Op) {
	for _, k := range s.candidates(nil) {
		if k.kind == api.KindTask {
			ops = h.difference(ops, s, k, nil)
		}
	}
	return h.difference(ops, s, key{api.KindNode, s.nodeID}, nil)
}

// dirtyNodes lists the nodes to look at: all that are and all that were sent, or
// those that changed.
func dirtyNodes(view *store.View, s *session, todo dirt) []string {
	if todo.all {
		for _, node := range view.Nodes() {
			todo.nodes[node.ID] = true
		}
		for k := range s.sent {
			if k.kind == api.KindNode {
				todo.nodes[k.id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(todo.nodes))
}

// order is in which kinds a node is told: what others refer to comes first.
var order = map[api.Kind]int{api.KindNetwork: 0, api.KindService: 1, api.KindTask: 2}

// candidates lists what is wanted and what was sent, without nodes and cluster.
func (s *session) candidates(wanted map[key]api.Object) []key {
	out := slices.Collect(maps.Keys(wanted))
	for k := range s.sent {
		if _, ours := order[k.kind]; ours && wanted[k] == nil {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b key) int {
		if a.kind != b.kind {
			return order[a.kind] - order[b.kind]
		}
		return strings.Compare(a.id, b.id)
	})
	return out
}

// difference appends the operation, if any, that makes the node's copy of an
// object that of the store; obj is nil when the node is not to have it.
func (h *hub) difference(ops []api.Op, s *session, k key, obj api.Object) []api.Op {
	has, known := s.sent[k]
	if obj == nil {
		if known {
			delete(s.sent, k)
			ops = append(ops, api.Delete(tombstone(k)))
		}
		return ops
	}
	now := h.seen(obj)
	if known && has == now.change {
		return ops
	}
	s.sent[k] = now.change
	if known {
		return append(ops, api.UpdateAnyway(now.view))
	}
	return append(ops, api.Create(now.view))
}
