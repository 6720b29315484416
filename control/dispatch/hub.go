package dispatch

import (
	"context"
	"sync"

	"shoal/control/api"
	"shoal/control/store"
)

// hub follows the store and tells each session what to look at again. A change
// to a task costs its node's session only; one to a service or network costs a
// look at every session, and work in those that use it.
type hub struct {
	mu       sync.Mutex
	sessions map[string]*session
	mesh     map[string]bool   // services with a port in the routing mesh
	ingress  string            // id of the ingress network
	names    map[string]string // network names to ids
	trimmed  map[key]*trimmed
	ready    chan struct{} // closed once the tables above are filled
	started  bool
	asked    uint64 // the revision that every node is to confirm
}

// trimmed is what nodes see of an object, kept for all sessions together.
type trimmed struct {
	source api.Object // the stored object that it was made from
	view   api.Object
	// change is the version of the last difference that matters to a node.
	change uint64
}

func newHub() *hub {
	return &hub{sessions: map[string]*session{}, trimmed: map[key]*trimmed{}, ready: make(chan struct{})}
}

// follow runs until ctx ends. When it lost the store's thread, it starts over
// with every session.
func (h *hub) follow(ctx context.Context, s *store.Store) error {
	for {
		inner, cancel := context.WithCancel(ctx)
		batches := s.Subscribe(inner, subscription)
		view := s.View()
		h.reset(view)
		for batch := range batches {
			if batch.Lost == nil && batch.Index > view.Index() {
				h.take(batch.Changes)
			}
		}
		cancel()
		if ctx.Err() != nil {
			return context.Canceled
		}
	}
}

// reset fills the tables from a view and has every session look at everything.
func (h *hub) reset(view *store.View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mesh, h.names, h.ingress = map[string]bool{}, map[string]string{}, ""
	for _, service := range view.Services() {
		h.noteService(service)
	}
	for _, network := range view.Networks() {
		h.noteNetwork(network)
	}
	for k := range h.trimmed {
		if find(view, k) == nil {
			delete(h.trimmed, k)
		}
	}
	for _, session := range h.sessions {
		session.mark(func(d *dirt) { d.all = true })
	}
	if !h.started {
		h.started = true
		close(h.ready)
	}
}

func (h *hub) noteService(s *api.Service) {
	if published(s) {
		h.mesh[s.ID] = true
	} else {
		delete(h.mesh, s.ID)
	}
}

func (h *hub) noteNetwork(n *api.Network) {
	h.names[n.Spec.Name] = n.ID
	if n.Spec.Ingress {
		h.ingress = n.ID
	}
}

// take spreads one commit.
func (h *hub) take(changes []store.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, change := range changes {
		h.spread(change)
		if change.New == nil {
			delete(h.trimmed, keyOf(change.Old))
		}
	}
}

func (h *hub) spread(change store.Change) {
	switch change.Kind() {
	case api.KindTask:
		h.spreadTask(change)
	case api.KindService:
		h.spreadService(change)
	case api.KindNetwork:
		h.spreadNetwork(change)
	case api.KindNode:
		id := either(change).ObjectID()
		h.markAll(func(d *dirt) { d.nodes[id] = true })
	case api.KindCluster:
		h.markAll(func(d *dirt) { d.cluster = true })
	}
}

func either(change store.Change) api.Object {
	if change.New != nil {
		return change.New
	}
	return change.Old
}

func (h *hub) spreadTask(change store.Change) {
	for _, obj := range []api.Object{change.Old, change.New} {
		if task, ok := obj.(*api.Task); ok {
			if session := h.sessions[task.NodeID]; session != nil {
				session.mark(func(d *dirt) { d.own = true })
			}
		}
	}
}

func (h *hub) spreadService(change store.Change) {
	older, _ := change.Old.(*api.Service)
	newer, _ := change.New.(*api.Service)
	everybody := older != nil && h.mesh[older.ID]
	if newer != nil {
		h.noteService(newer)
		everybody = everybody || h.mesh[newer.ID]
	} else {
		delete(h.mesh, older.ID)
	}
	for _, session := range h.sessions {
		if everybody || older != nil && uses(older, session.networks, h.names) || newer != nil && uses(newer, session.networks, h.names) {
			session.mark(func(d *dirt) { d.own = true })
		}
	}
}

func (h *hub) spreadNetwork(change store.Change) {
	id := either(change).ObjectID()
	was := h.ingress
	if newer, ok := change.New.(*api.Network); ok {
		h.noteNetwork(newer)
	} else if older := change.Old.(*api.Network); h.names[older.Spec.Name] == id {
		delete(h.names, older.Spec.Name)
		if h.ingress == id {
			h.ingress = ""
		}
	}
	for _, session := range h.sessions {
		if was != h.ingress || session.networks[id] {
			session.mark(func(d *dirt) { d.own = true })
		}
	}
}

func (h *hub) markAll(what func(*dirt)) {
	for _, session := range h.sessions {
		session.mark(what)
	}
}

// seen returns the shared trimmed form of a stored object. Its change moves
// only when a node would see a difference. The caller holds mu and a view not
// older than any used before.
func (h *hub) seen(obj api.Object) *trimmed {
	k := keyOf(obj)
	known := h.trimmed[k]
	if known == nil {
		known = &trimmed{}
		h.trimmed[k] = known
	}
	if known.source == obj {
		return known
	}
	view := trim(obj)
	if known.view == nil || !same(known.view, view) {
		known.change = obj.ObjectMeta().Version.Index
	}
	known.source, known.view = obj, view
	return known
}

// find returns the stored object of a key, nil when there is none.
func find(view *store.View, k key) api.Object {
	switch k.kind {
	case api.KindCluster:
		if c := view.Cluster(); c != nil && c.ID == k.id {
			return c
		}
	case api.KindNode:
		if n := view.Node(k.id); n != nil {
			return n
		}
	case api.KindService:
		if s := view.Service(k.id); s != nil {
			return s
		}
	case api.KindTask:
		if t := view.Task(k.id); t != nil {
			return t
		}
	case api.KindNetwork:
		if n := view.Network(k.id); n != nil {
			return n
		}
	}
	return nil
}
