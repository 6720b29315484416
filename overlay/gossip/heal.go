package gossip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"shoal/overlay/endpoint"
)

// roundsMax bounds the requests of one synchronisation with one member.
const roundsMax = 64

// pushBytes is where one push stops taking in further owners.
const pushBytes = answerBytes

// syncLoop compares digests with a member at random.
func (g *Gossip) syncLoop() {
	for g.wait(jitter(g.pace.SyncInterval)) {
		g.syncOnce()
	}
}

func (g *Gossip) syncOnce() {
	members := slices.Collect(maps.Keys(g.others()))
	for _, id := range pick(members, 1) {
		_ = g.syncWith(g.ctx, id) // a failure is in Stats; the next round asks another
	}
}

// fewOwners is up to how many owners at once are asked themselves; when more are
// missing, members at random are asked, who have them soon enough.
const fewOwners = 4

// closeGaps asks for what is missing of the owners: each that is a live member
// itself while they are few, a member at random for the rest.
func (g *Gossip) closeGaps(owners []string) {
	members := g.others()
	if len(owners) == 0 || len(members) == 0 {
		return
	}
	var rest []string
	for i, owner := range owners {
		_, live := members[owner]
		if !live || i >= fewOwners || g.pull(g.ctx, owner, []string{owner}) != nil {
			rest = append(rest, owner)
		}
	}
	if len(rest) > 0 {
		for _, id := range pick(slices.Collect(maps.Keys(members)), 1) {
			g.stats.notePull(id, g.pull(g.ctx, id, rest))
		}
	}
}

// syncWith makes the own and a member's table equal: cheaply if they are already.
func (g *Gossip) syncWith(ctx context.Context, id string) error {
	sum := binary.BigEndian.AppendUint64(nil, g.table.Digest().Sum())
	kind, _, err := g.call(ctx, id, kindSum, sum)
	if err == nil && kind == kindDiffers {
		err = g.pull(ctx, id, nil)
	}
	g.stats.notePull(id, err)
	if err == nil {
		g.comparedOnce.Do(func() { close(g.compared) })
	}
	return err
}

// Compared is closed once the table holds all that some other member knew. Until
// then it may hold anything between nothing and all of it: events of a moment
// ago come before the tables are compared.
func (g *Gossip) Compared() <-chan struct{} { return g.compared }

// pull exchanges with a member what the two lack about the owners given, or about
// all owners if none is given.
func (g *Gossip) pull(ctx context.Context, id string, owners []string) error {
	for range roundsMax {
		req := digestRequest{Whole: len(owners) == 0}
		if req.Whole {
			req.Digest = g.table.Digest()
		} else {
			req.Digest = g.table.DigestOf(owners...)
		}
		kind, body, err := g.call(ctx, id, kindDigest, req.encode())
		if err == nil && kind != kindSets {
			err = fmt.Errorf("%w: kind %d for sets", errFrame, kind)
		}
		if err != nil {
			return err
		}
		a, err := decodeSetsAnswer(body)
		if err != nil {
			return fmt.Errorf("sets of node %s: %w", id, err)
		}
		g.stats.pulls.Add(1)
		g.mergeSets(a.Sets)
		if err := g.push(ctx, id, a.Wants); err != nil {
			return err
		}
		if !a.More {
			return nil
		}
	}
	return fmt.Errorf("synchronise with node %s: no end after %d rounds", id, roundsMax)
}

// mergeSets takes in what another node knows.
func (g *Gossip) mergeSets(sets []endpoint.Set) {
	g.merged(g.table.MergeSets(admitted(g.door, sets, func(s endpoint.Set) string { return s.Owner })))
}

// push gives a member what it asked for.
func (g *Gossip) push(ctx context.Context, id string, wants []endpoint.Want) error {
	for len(wants) > 0 {
		sets, more := g.table.SetsFor(wants, pushBytes)
		if len(sets) == 0 {
			return nil
		}
		kind, _, err := g.call(ctx, id, kindPush, setsAnswer{Sets: sets}.encode())
		if err != nil {
			return err
		}
		if kind != kindTaken {
			return fmt.Errorf("%w: kind %d for a push", errFrame, kind)
		}
		if !more {
			return nil
		}
		last := sets[len(sets)-1].Owner
		i := slices.IndexFunc(wants, func(w endpoint.Want) bool { return w.Owner == last })
		wants = wants[i+1:]
	}
	return nil
}

var errNotAlive = errors.New("not a live member")

func (g *Gossip) call(ctx context.Context, id string, kind byte, body []byte) (byte, []byte, error) {
	addr, err := g.liveAddr(id)
	if err != nil {
		return 0, nil, fmt.Errorf("ask node %s: %w", id, err)
	}
	ctx, cancel := context.WithTimeout(ctx, g.pace.StreamTimeout)
	defer cancel()
	return g.peers.call(ctx, id, addr, kind, body)
}

// Dial opens a connection to a live member for one of the protocols that Others
// names. It ends at that node and no other.
func (g *Gossip) Dial(ctx context.Context, id, protocol string) (net.Conn, error) {
	addr, err := g.liveAddr(id)
	if err != nil {
		return nil, fmt.Errorf("connect to node %s: %w", id, err)
	}
	ctx, cancel := context.WithTimeout(ctx, g.pace.StreamTimeout)
	defer cancel()
	return g.net.dial(ctx, protocol, id, addr)
}

// liveAddr is the address of a live member that is not refused.
func (g *Gossip) liveAddr(id string) (string, error) {
	if err := g.door.refusal(id); err != nil {
		return "", err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	addr, ok := g.alive[id]
	if !ok {
		return "", errNotAlive
	}
	return addr, nil
}

func (g *Gossip) after(d time.Duration) <-chan time.Time { return time.After(d) }

// jitter spreads d over 0.75 to 1.25 of itself, so that nodes do not march in step.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2))
}
