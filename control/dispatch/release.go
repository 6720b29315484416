package dispatch

import (
	"context"
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

// levels remembers up to which revision each node has put everything into effect.
type levels struct {
	mu   sync.Mutex
	of   map[string]uint64
	news chan struct{}
}

func newLevels() *levels { return &levels{of: map[string]uint64{}, news: make(chan struct{}, 1)} }

// set notes a node's level.
func (l *levels) set(nodeID string, level uint64) {
	l.mu.Lock()
	changed := l.of[nodeID] != level
	l.of[nodeID] = level
	l.mu.Unlock()
	if changed {
		select {
		case l.news <- struct{}{}:
		default:
		}
	}
}

// lowest returns what all nodes that live have reached, and the names of those
// that have not reached wanted. A node that is down does not count, and when it
// comes back nothing that it said before does.
func (l *levels) lowest(nodes []*api.Node, wanted uint64) (level uint64, behind []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	level = wanted
	live := make(map[string]uint64, len(nodes))
	for _, n := range nodes {
		if n.Status.State != swarm.NodeStateReady {
			continue
		}
		at := l.of[n.ID]
		live[n.ID] = at
		if at < wanted {
			behind = append(behind, n.Description.Hostname+" ("+n.ID+")")
		}
		level = min(level, at)
	}
	l.of = live
	return level, behind
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
	newest := slices.MaxFunc(retired, byVersion).Version.Index
	t.hub.ask(newest)
	level, behind := t.levels.lowest(view.Nodes(), newest)
	now := t.cfg.Now()
	for _, r := range retired {
		left := r.UpdatedAt.Add(releaseTimeout).Sub(now)
		if left <= 0 && r.Version.Index > level {
			t.cfg.Logger.Warn("addresses are free although not every node has confirmed that their last owner is gone",
				"owner", r.ID, "silent", behind)
			level = r.Version.Index
		}
		if left > 0 && (next == 0 || left < next) {
			next = left
		}
	}
	if !slices.ContainsFunc(retired, func(r *api.Retired) bool { return r.Version.Index <= level }) {
		return next, nil
	}
	return next, t.cfg.Propose(ctx, []api.Op{api.Release(level)})
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
