package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/serf/serf"
)

// MemberState is what the gossip thinks of a member.
type MemberState string

// The states of a member.
const (
	Alive MemberState = "alive"
	// Failed members stopped answering; they are tried again.
	Failed MemberState = "failed"
	// Left members said goodbye.
	Left MemberState = "left"
)

// Member is one node of the gossip.
type Member struct {
	NodeID string
	// Name is the host name the node gave.
	Name string
	// Addr is the gossip address, host:port.
	Addr  string
	State MemberState
	// Epoch is the incarnation that the node began to gossip with.
	Epoch uint64
}

// The tags by which a member tells of itself.
const (
	nameTag  = "name"
	epochTag = "epoch"
)

// Members returns all members known, the own node among them, by node id. One that
// is not admitted any more is none, although Serf takes a while to see it go.
func (g *Gossip) Members() []Member {
	var out []Member
	for _, m := range g.serf.Members() {
		if g.door.refusal(m.Name) != nil {
			continue
		}
		epoch, _ := strconv.ParseUint(m.Tags[epochTag], 10, 64) // 0 without a sensible one
		out = append(out, Member{NodeID: m.Name, Name: m.Tags[nameTag], Addr: memberAddr(m), State: stateOf(m.Status), Epoch: epoch})
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.NodeID, b.NodeID) })
	return out
}

func memberAddr(m serf.Member) string {
	return net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port)))
}

// stateOf counts a leaving member as alive: it answers until it is gone.
func stateOf(s serf.MemberStatus) MemberState {
	switch s {
	case serf.StatusAlive, serf.StatusLeaving:
		return Alive
	case serf.StatusLeft:
		return Left
	}
	return Failed
}

// membersLoop follows the membership outside of Serf's event path.
func (g *Gossip) membersLoop() {
	var news <-chan struct{} // of the table, while a member that is back has not told of itself
	for {
		select {
		case <-g.membersKick:
		case <-news:
		case <-g.ctx.Done():
			return
		}
		next := g.table.Changed()
		changed := g.lookAtMembers()
		marked, awaited := g.markDown()
		if news = nil; awaited {
			news = next
		}
		if (marked || changed) && g.cfg.MembersChanged != nil {
			g.cfg.MembersChanged()
		}
		g.greetNew()
	}
}

// lookAtMembers renews who is alive and reports whether that is a change.
func (g *Gossip) lookAtMembers() bool {
	alive, epochs := map[string]string{}, map[string]uint64{}
	members := g.Members()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range members {
		if m.NodeID == g.cfg.NodeID {
			continue
		}
		if m.State == Alive {
			alive[m.NodeID], epochs[m.NodeID] = m.Addr, m.Epoch
		}
		g.known[m.NodeID] = m.Addr
		delete(g.unmet, m.NodeID)
	}
	g.epochs = epochs
	if maps.Equal(alive, g.alive) {
		return false
	}
	g.alive = alive
	return true
}

// markDown tells the table which owners, and which members seen once, are not
// live members, apart from those of an earlier run that nobody has met yet. One
// that was down and is back with a new incarnation stays down until its records
// are of that one: what it had before may be gone. awaited says that there is one.
func (g *Gossip) markDown() (changed, awaited bool) {
	owners := g.table.Owners()
	g.mu.Lock()
	owners = slices.AppendSeq(owners, maps.Keys(g.known))
	down := slices.DeleteFunc(owners, func(id string) bool {
		_, alive := g.alive[id]
		if alive && slices.Contains(g.down, id) && !g.table.Shows(id, g.epochs[id]) {
			awaited = true
			return false
		}
		return alive || id == g.cfg.NodeID || g.unmet[id]
	})
	g.down = down
	g.mu.Unlock()
	return g.table.SetDown(down...), awaited
}

// meetLoop ends the time that owners of an earlier run have to be met.
func (g *Gossip) meetLoop() {
	if !g.wait(strangersFor) {
		return
	}
	g.mu.Lock()
	clear(g.unmet)
	g.mu.Unlock()
	kick(g.membersKick)
}

// others are the addresses of the live members but the own one.
func (g *Gossip) others() map[string]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.alive)
}

// greetMax bounds the members synchronised with because they appeared; in a
// large cluster each of them is met by some, and the digests do the rest.
const greetMax = 3

// greetNew compares tables with members that have just appeared.
func (g *Gossip) greetNew() {
	g.mu.Lock()
	var met []string
	for id := range g.greet {
		if _, ok := g.alive[id]; ok && len(met) < greetMax {
			met = append(met, id)
		}
	}
	clear(g.greet)
	g.mu.Unlock()
	for _, id := range met {
		g.wg.Go(func() { _ = g.syncWith(g.ctx, id) }) // a failure is in Stats, and syncLoop comes by
	}
}

// Join makes the node look for the cluster at the given addresses, host:port or
// just host for the own port, until it finds it, and again whenever it is alone.
// It returns at once.
func (g *Gossip) Join(addrs []string) {
	g.mu.Lock()
	for _, a := range addrs {
		if _, _, err := net.SplitHostPort(a); err != nil {
			a = net.JoinHostPort(strings.Trim(a, "[]"), strconv.Itoa(int(g.Addr().Port())))
		}
		if a != g.Addr().String() && !slices.Contains(g.seeds, a) {
			g.seeds = append(g.seeds, a)
		}
	}
	g.mu.Unlock()
	kick(g.joinKick)
}

// rejoinLoop joins while alone, and tries a failed member now and then: so the two
// sides of a partition find each other when it ends.
func (g *Gossip) rejoinLoop() {
	for {
		if targets := g.rejoinTargets(); len(targets) > 0 {
			g.joinAll(targets)
		}
		select {
		case <-g.joinKick:
		case <-g.after(jitter(g.pace.RejoinInterval)):
		case <-g.ctx.Done():
			return
		}
	}
}

// rejoinMax bounds how many addresses are tried at once.
const rejoinMax = 5

// rejoinTargets are whom to join now. Nodes that were refused and are admitted now
// come first. Else, among live members, that is one that failed,
// or one that was named and never seen: the news of a member are told only a few
// times by whoever hears them first, so a node that joined at the same time as
// others can miss them.
func (g *Gossip) rejoinTargets() []string {
	if due := g.door.due(); len(due) > 0 {
		return pick(due, rejoinMax) // each of them knows the others
	}
	missing, seen := map[string]bool{}, map[string]bool{}
	for _, m := range g.Members() {
		seen[m.Addr] = true
		if m.State == Failed {
			missing[m.Addr] = true
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.alive) > 0 {
		for _, a := range g.seeds {
			if !seen[a] {
				missing[a] = true
			}
		}
		return pick(slices.Collect(maps.Keys(missing)), 1)
	}
	all := slices.Clone(g.seeds)
	all = slices.AppendSeq(all, maps.Values(g.known))
	slices.Sort(all)
	return pick(slices.Compact(all), rejoinMax)
}

// joinAll joins through each of the addresses that answers. Serf joins one after
// the other and would wait for a dead address, so all are called first at once.
func (g *Gossip) joinAll(addrs []string) {
	ctx, cancel := context.WithTimeout(g.ctx, g.pace.StreamTimeout)
	defer cancel()
	results := make(chan error, len(addrs))
	for _, a := range addrs {
		g.wg.Go(func() { results <- g.joinOne(ctx, a) })
	}
	var errs []error
	for range addrs {
		errs = append(errs, <-results)
	}
	if err := errors.Join(errs...); err != nil && g.ctx.Err() == nil {
		g.stats.joinsFailed.Add(1)
		g.cfg.Logger.Debug("join gossip", "err", err)
	}
	kick(g.membersKick)
}

func (g *Gossip) joinOne(ctx context.Context, addr string) error {
	conn, err := g.cfg.Dial(ctx, addr)
	if err != nil {
		return fmt.Errorf("reach gossip member %s: %w", addr, err)
	}
	if err := conn.Close(); err != nil {
		return fmt.Errorf("reach gossip member %s: %w", addr, err)
	}
	g.joinMu.RLock()
	defer g.joinMu.RUnlock()
	if g.leaving {
		return fmt.Errorf("join gossip at %s: the node is leaving", addr)
	}
	if _, err := g.serf.Join([]string{addr}, false); err != nil {
		return fmt.Errorf("join gossip at %s: %w", addr, err)
	}
	return nil
}

// Forget removes a node that the managers have removed from the cluster, from
// the table and from the membership, here and by a broadcast elsewhere.
func (g *Gossip) Forget(ctx context.Context, nodeID string) error {
	g.table.Forget(nodeID)
	g.door.remove(nodeID)
	g.mu.Lock()
	gone := g.known[nodeID]
	g.seeds = slices.DeleteFunc(g.seeds, func(a string) bool { return a == gone })
	delete(g.known, nodeID)
	g.mu.Unlock()
	kick(g.membersKick)
	done := make(chan error, 1)
	g.wg.Go(func() { done <- g.serf.RemoveFailedNodePrune(nodeID) })
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("remove node %s from gossip: %w", nodeID, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("remove node %s from gossip: %w", nodeID, ctx.Err())
	}
}

// pick returns up to n of the items at random.
func pick[T any](items []T, n int) []T {
	rand.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	return items[:min(n, len(items))]
}
