package gossip

import (
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"shoal/overlay/endpoint"
)

// counters are what Stats reports, since Start.
type counters struct {
	eventsIn, eventsOut, eventsFailed atomic.Uint64
	recordsIn, corrupt                atomic.Uint64
	pulls, pullsServed, joinsFailed   atomic.Uint64
	lastEvent                         atomic.Int64

	mu    sync.Mutex
	peers map[string]PeerSync
}

// PeerSync is the last comparison of tables with one member.
type PeerSync struct {
	// At is when the last one succeeded, zero if none did.
	At time.Time
	// Error is why the last one failed, empty if it did not.
	Error string
}

// Stats are numbers about the gossip, for people.
type Stats struct {
	Members []Member
	// IntentQueue, EventQueue and QueryQueue are Serf broadcasts waiting to be
	// sent; PublishQueue are records waiting for their event.
	IntentQueue, EventQueue, QueryQueue, PublishQueue int
	// Health is memberlist's awareness of itself: 0 is good, more is slower.
	Health int
	// EventsIn and EventsOut count Serf events, EventsFailed those not sent.
	EventsIn, EventsOut, EventsFailed uint64
	// RecordsIn counts records that were news, Corrupt messages not understood.
	RecordsIn, Corrupt uint64
	// Pulls counts the answers got from others, PullsServed those given.
	Pulls, PullsServed, JoinsFailed uint64
	// LastEvent is when the last own event was sent, zero if none was.
	LastEvent time.Time
	// Behind are the owners of whom a write is known to be missing.
	Behind []string
	// Peers is the last comparison of tables by node.
	Peers map[string]PeerSync
	// Digest sums up the table; DigestSum is equal on nodes that agree.
	Digest    endpoint.Digest
	DigestSum uint64
}

// Stats returns the present numbers.
func (g *Gossip) Stats() Stats {
	s := g.serf.Stats()
	digest := g.table.Digest()
	g.mu.Lock()
	waiting := len(g.queue)
	g.mu.Unlock()
	c := &g.stats
	out := Stats{
		Members:     g.Members(),
		IntentQueue: atoi(s["intent_queue"]), EventQueue: atoi(s["event_queue"]), QueryQueue: atoi(s["query_queue"]),
		PublishQueue: waiting, Health: atoi(s["health_score"]),
		EventsIn: c.eventsIn.Load(), EventsOut: c.eventsOut.Load(), EventsFailed: c.eventsFailed.Load(),
		RecordsIn: c.recordsIn.Load(), Corrupt: c.corrupt.Load(),
		Pulls: c.pulls.Load(), PullsServed: c.pullsServed.Load(), JoinsFailed: c.joinsFailed.Load(),
		Behind: g.table.Behind(), Digest: digest, DigestSum: digest.Sum(),
	}
	if at := c.lastEvent.Load(); at != 0 {
		out.LastEvent = time.Unix(0, at)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out.Peers = maps.Clone(c.peers)
	return out
}

// peersNoted bounds the members whose last comparison is remembered.
const peersNoted = 256

func (c *counters) notePull(id string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers == nil || len(c.peers) >= peersNoted {
		c.peers = map[string]PeerSync{}
	}
	p := c.peers[id]
	p.Error = ""
	if err != nil {
		p.Error = err.Error()
	} else {
		p.At = time.Now()
	}
	c.peers[id] = p
}

// atoi reads one of Serf's numbers; they are decimal by construction.
func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
