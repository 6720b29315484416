package agent

import (
	"context"
	"math"
	"sync"
	"time"

	"shoal/control/api"
)

// goneTimeout bounds how long the end of tasks waits for other nodes to confirm
// that they know of it.
const goneTimeout = 5 * time.Second

// levels knows up to which revision of the managers' state this node has put
// everything into effect: its network is programmed, and what it was told to end
// has left nothing behind, here and on other nodes.
type levels struct {
	mu sync.Mutex
	// revision is of the newest assignment, programmed that of the network, and ahead
	// that of it but for the networks in held.
	revision, programmed, ahead uint64
	held                        []string
	// wanted is what the managers asked to be told of, told what they were told, and
	// toldAhead what of the networks that are in order.
	wanted, told, toldAhead uint64
	// holds has the tasks that have ended and may have left something, with the
	// last revision that cannot know of their end.
	holds map[string]uint64
	// gone are those of them of which nothing is left on this node.
	gone map[string]bool
	// work is signalled when there may be something to confirm, reached when the
	// managers are to be told.
	work    chan struct{}
	reached func()
}

func newLevels(revision uint64, reached func()) *levels {
	return &levels{
		revision: revision, holds: map[string]uint64{}, gone: map[string]bool{},
		work: make(chan struct{}, 1), reached: reached,
	}
}

// hold keeps the level below the moment at which the managers hear of a task's
// end, which must not have been reported yet, or unassign it.
func (l *levels) hold(taskID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, held := l.holds[taskID]; !held {
		l.holds[taskID] = l.revision
	}
}

// holdAll keeps the level at nothing: it is not known when the managers heard.
func (l *levels) holdAll(taskID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds[taskID] = 0
}

// release says that nothing of the task is left on this node.
func (l *levels) release(taskID string) {
	l.mu.Lock()
	if _, held := l.holds[taskID]; held {
		l.gone[taskID] = true
	}
	l.mu.Unlock()
	l.look()
}

// advance takes note of an assignment, once its tasks are told.
func (l *levels) advance(m api.Assignment) {
	l.mu.Lock()
	if !changes(m) && l.programmed == l.revision {
		l.programmed = m.Revision // there is nothing to do for it
	}
	if !changes(m) && l.ahead == l.revision {
		l.ahead = m.Revision
	}
	l.revision = m.Revision
	if m.Confirm {
		l.wanted = m.Revision
	}
	l.mu.Unlock()
	l.look()
}

// changes says whether an assignment says anything but its revision.
func changes(m api.Assignment) bool { return m.Full || len(m.Ops) > 0 }

// setProgrammed says that the network is what that revision asks for, but for some
// networks.
func (l *levels) setProgrammed(revision uint64, held []string) {
	l.mu.Lock()
	if l.ahead, l.held = revision, held; len(held) == 0 {
		l.programmed = revision
	}
	l.mu.Unlock()
	l.look()
}

// at returns the level, and that of the networks that are in order.
func (l *levels) at() (all, ahead uint64) {
	lowest := uint64(math.MaxUint64)
	for _, held := range l.holds {
		lowest = min(lowest, held)
	}
	return min(l.programmed, lowest), min(l.ahead, lowest)
}

// level returns the level, as the managers are about to be told.
func (l *levels) level() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told, _ = l.at()
	return l.told
}

// beyond returns what counts for some networks only, likewise.
func (l *levels) beyond() *api.Beyond {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, ahead := l.at()
	l.toldAhead = ahead
	if ahead <= all || len(l.held) == 0 {
		return nil
	}
	return &api.Beyond{Level: ahead, But: l.held}
}

// look wakes whom the newest state concerns.
func (l *levels) look() {
	l.mu.Lock()
	asked := l.wanted > l.told
	all, ahead := l.at()
	reached := asked && all >= l.wanted || l.wanted > l.toldAhead && ahead >= l.wanted
	confirm := asked && len(l.gone) > 0
	l.mu.Unlock()
	if confirm {
		select {
		case l.work <- struct{}{}:
		default:
		}
	}
	if reached {
		l.reached()
	}
}

// settle lets other nodes confirm that they know of the ends of tasks, many at
// once, whenever the managers ask.
func (a *Agent) settle(ctx context.Context) {
	l := a.levels
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.work:
		}
		l.mu.Lock()
		batch := l.gone
		l.gone = map[string]bool{}
		l.mu.Unlock()
		if len(batch) == 0 {
			continue
		}
		inner, cancel := context.WithTimeout(ctx, a.cfg.patience(goneTimeout))
		missing := a.cfg.Endpoints.Settled(inner)
		cancel()
		if len(missing) > 0 && ctx.Err() == nil {
			a.cfg.Logger.Warn("not every node confirmed that it has forgotten tasks that ended", "tasks", len(batch), "silent", missing)
		}
		l.mu.Lock()
		for id := range batch {
			delete(l.holds, id)
		}
		l.mu.Unlock()
		l.look()
	}
}

// Revision is that of the newest assignment that has been taken in whole.
func (a *Agent) Revision() uint64 {
	a.levels.mu.Lock()
	defer a.levels.mu.Unlock()
	return a.levels.revision
}

// Programmed says that the node's network is what that revision asks for, but for what
// concerns the networks in held, by id or by the name of the namespace.
func (a *Agent) Programmed(revision uint64, held ...string) { a.levels.setProgrammed(revision, held) }

// Beyond is the level of the networks that are in order while others are not, nil
// while all are.
func (a *Agent) Beyond() *api.Beyond { return a.levels.beyond() }

// Level is up to which revision everything has been put into effect on this node,
// and the ends of its tasks on all.
func (a *Agent) Level() uint64 { return a.levels.level() }
