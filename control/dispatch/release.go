package dispatch

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

const (
	// releaseTimeout is how long what was retired waits for nodes that live and
	// do not confirm.
	releaseTimeout = 30 * time.Second
	// releasePace, and for each node releasePacePerNode, lie between two looks at
	// what the nodes have confirmed: each may cost a message to and from all.
	releasePace        = 10 * time.Millisecond
	releasePacePerNode = time.Millisecond
)

// level is up to which revision a node has put everything into effect, and beyond
// that everything but what concerns some networks.
type level struct {
	all    uint64
	beyond *api.Beyond
}

// at is the level for what concerns some networks.
func (l level) at(networks []string) uint64 {
	for _, id := range networks {
		if !l.beyond.Covers(id) {
			return l.all
		}
	}
	if l.beyond == nil {
		return l.all
	}
	return max(l.all, l.beyond.Level)
}

// levels remembers the level of each node.
type levels struct {
	mu   sync.Mutex
	of   map[string]level
	news chan struct{}
}

func newLevels() *levels { return &levels{of: map[string]level{}, news: make(chan struct{}, 1)} }

// set notes a node's level.
func (l *levels) set(nodeID string, to level) {
	l.mu.Lock()
	changed := !reflect.DeepEqual(l.of[nodeID], to)
	l.of[nodeID] = to
	l.mu.Unlock()
	if changed {
		select {
		case l.news <- struct{}{}:
		default:
		}
	}
}

// forget drops what nodes that do not live have said. Such a node does not count, and
// when it comes back nothing that it said before does.
func (l *levels) forget(nodes []*api.Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	live := make(map[string]level, len(nodes))
	for _, n := range nodes {
		if at, said := l.of[n.ID]; said && n.Status.State == swarm.NodeStateReady {
			live[n.ID] = at
		}
	}
	l.of = live
}

// behind names the nodes that live and have not reached wanted for what concerns the
// networks.
func (l *levels) behind(nodes []*api.Node, wanted uint64, networks []string) (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range nodes {
		if n.Status.State == swarm.NodeStateReady && l.of[n.ID].at(networks) < wanted {
			names = append(names, n.Description.Hostname+" ("+n.ID+")")
		}
	}
	return names
}

// watchRelease frees what was retired once every node that lives has confirmed a
// later state, or after releaseTimeout.
func (t *term) watchRelease(ctx context.Context) error {
	for {
		changed := t.cfg.Store.Changed(api.KindRetired, api.KindNode)
		view := t.cfg.Store.View()
		next, err := t.release(ctx, view)
		if err != nil && ctx.Err() == nil {
			t.cfg.Logger.Warn("free what was retired", "err", err)
			next = t.heartbeat(view)
		}
		var late <-chan time.Time
		if next > 0 {
			late = time.After(next)
		}
		select {
		case <-ctx.Done():
			return context.Canceled
		case <-changed:
		case <-t.levels.news:
		case <-late:
		}
		select {
		case <-ctx.Done():
			return context.Canceled
		case <-time.After(releasePace + time.Duration(len(view.Nodes()))*releasePacePerNode):
		}
	}
}

// release proposes what may be freed now, and says when to look again although
// nothing changed, 0 for never.
func (t *term) release(ctx context.Context, view *store.View) (next time.Duration, err error) {
	retired := slices.DeleteFunc(view.Retired(), func(r *api.Retired) bool {
		return r.Network != nil && view.NetworkHasTasks(r.Network.ID)
	})
	if len(retired) == 0 {
		return 0, nil
	}
	slices.SortFunc(retired, byVersion)
	t.hub.ask(retired[len(retired)-1].Version.Index)
	level, next := t.releasable(view.Nodes(), retired)
	if level == 0 {
		return next, nil
	}
	return next, t.cfg.Propose(ctx, []api.Op{api.Release(level)})
}

// releasable returns up to which version what was retired may be freed, 0 for none,
// and after which time the oldest of the rest may be whoever has not confirmed. What
// was retired later waits for what was retired earlier: a release goes up to a version.
func (t *term) releasable(nodes []*api.Node, retired []*api.Retired) (upTo uint64, next time.Duration) {
	t.levels.forget(nodes)
	now := t.cfg.Now()
	for _, r := range retired {
		behind := t.levels.behind(nodes, r.Version.Index, networksOf(r))
		left := r.UpdatedAt.Add(releaseTimeout).Sub(now)
		switch {
		case len(behind) == 0:
		case left > 0:
			return upTo, left
		default:
			t.cfg.Logger.Warn("addresses are free although not every node has confirmed that their last owner is gone",
				"owner", r.ID, "silent", behind)
		}
		upTo = r.Version.Index
	}
	return upTo, 0
}

// networksOf lists the networks that something was retired from.
func networksOf(r *api.Retired) (ids []string) {
	for _, a := range r.Addresses {
		ids = append(ids, a.NetworkID)
	}
	if r.Network != nil {
		ids = append(ids, r.Network.ID)
	}
	return ids
}

func byVersion(a, b *api.Retired) int {
	switch {
	case a.Version.Index < b.Version.Index:
		return -1
	case a.Version.Index > b.Version.Index:
		return 1
	}
	return 0
}

// ask has every node confirm that revision or a later one, once.
func (h *hub) ask(revision uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if revision <= h.asked {
		return
	}
	h.asked = revision
	for _, s := range h.sessions {
		s.mark(func(*dirt) {})
	}
}
