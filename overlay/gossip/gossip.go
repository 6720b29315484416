package gossip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"shoal/overlay/endpoint"
)

// Gossip is one node's part in the gossip. It is safe for concurrent use.
type Gossip struct {
	cfg     Config
	pace    Profile
	table   *endpoint.Table
	net     *transport
	door    *door
	serf    *serf.Serf
	keyring *memberlist.Keyring
	keysMu  sync.Mutex
	events  chan serf.Event
	// eventsEnd ends the reading of events, once Serf is down.
	eventsEnd chan struct{}
	peers     *peers

	// Each of these channels holds at most one wake-up.
	membersKick, gapKick, publishKick, joinKick chan struct{}

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// joinMu is held for reading during a join; leaving forbids further ones.
	joinMu  sync.RWMutex
	leaving bool

	mu sync.Mutex
	// seeds are all addresses ever given to Join.
	seeds []string
	// known are the addresses of all members ever seen, by node.
	known map[string]string
	// alive are the members that answered when last looked, by node.
	alive map[string]string
	// down are those that the table was last told are down.
	down []string
	// epochs are the incarnations that they gossip with.
	epochs map[string]uint64
	// greet are the members to be synchronised with because they appeared.
	greet map[string]struct{}
	// urgent are owners to pull without waiting for a late delta.
	urgent map[string]bool
	// queue are the own records that wait for their event.
	queue     []endpoint.Record
	published endpoint.Position
	hinted    endpoint.Position

	// applied is the view the kernel follows, but for the networks in held, where it
	// follows older ones; appliedWake closes when that changes.
	applied     *endpoint.View
	held        map[string]*endpoint.View
	appliedWake chan struct{}
	// unmet are the owners that the table knew from an earlier run and that have
	// not been met in this one, see strangersFor.
	unmet map[string]bool
	// reached is what others said about their applied views.
	reached map[reachKey]*reach

	// compared is closed once the whole table has been compared with another.
	compared     chan struct{}
	comparedOnce sync.Once

	stats  counters
	closed atomic.Bool
}

const (
	// eventsQueued is how many events may wait between Serf and the table.
	eventsQueued = 4096
	// eventBytesMax is the largest payload of an event: with its headers it
	// fits into a packet of packetBytes.
	eventBytesMax = 1000
	packetBytes   = 1400
	// suspicionMaxMult is how many times longer a suspect has while nobody else
	// has confirmed the suspicion: half of a small cluster may be all there is.
	suspicionMaxMult = 2
	// strangersFor is how long an owner that the table remembers from an earlier
	// run counts as alive although nobody has met it in this one: what is not
	// known must not be taken for gone. The managers say sooner who is dead.
	strangersFor = 30 * time.Second
	// broadcastsMax is how many broadcasts may wait to be sent. More are
	// dropped by Serf, oldest first, and brought by digests.
	broadcastsMax = 4096
)

// Start begins to listen and to take part. The node is alone until Join.
func Start(cfg Config) (*Gossip, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	cfg.fill()
	g := &Gossip{
		cfg: cfg, pace: cfg.Profile, table: cfg.Table, door: newDoor(cfg.NodeID, cfg.Admit),
		events: make(chan serf.Event, eventsQueued), eventsEnd: make(chan struct{}),
		membersKick: make(chan struct{}, 1), gapKick: make(chan struct{}, 1),
		publishKick: make(chan struct{}, 1), joinKick: make(chan struct{}, 1),
		known: map[string]string{}, alive: map[string]string{}, greet: map[string]struct{}{},
		urgent: map[string]bool{}, reached: map[reachKey]*reach{},
		appliedWake: make(chan struct{}), compared: make(chan struct{}),
	}
	g.unmet = map[string]bool{}
	for _, id := range cfg.Table.Owners() {
		g.unmet[id] = true
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.open(); err != nil {
		g.cancel()
		return nil, fmt.Errorf("start gossip of node %s: %w", cfg.NodeID, err)
	}
	for _, loop := range []func(){g.publishLoop, g.membersLoop, g.rejoinLoop, g.syncLoop, g.gapLoop, g.meetLoop} {
		g.wg.Go(loop)
	}
	return g, nil
}

func (g *Gossip) open() error {
	ring := make([][]byte, 0, len(g.cfg.Keys))
	for _, key := range g.cfg.Keys {
		ring = append(ring, slices.Clone(key))
	}
	var err error
	if g.keyring, err = memberlist.NewKeyring(ring, ring[0]); err != nil {
		return fmt.Errorf("make keyring: %w", err)
	}
	if g.net, err = newTransport(&g.cfg, g.door, g.serve); err != nil {
		return err
	}
	g.peers = newPeers(g.net, g.pace.StreamTimeout)
	conf := g.serfConfig()
	// Serf blocks on a full event channel with its locks held, so the reader
	// runs before and until after Serf, and takes no lock of Serf's.
	g.wg.Go(g.eventLoop)
	if g.serf, err = serf.Create(conf); err != nil {
		shutdownErr := g.net.Shutdown()
		g.cancel()
		close(g.eventsEnd)
		g.wg.Wait()
		return fmt.Errorf("create serf: %w (transport: %v)", err, shutdownErr)
	}
	return nil
}

// Addr is where the node listens and is to be reached.
func (g *Gossip) Addr() netip.AddrPort { return g.net.addr }

func (g *Gossip) serfConfig() *serf.Config {
	p := g.pace
	ml := memberlist.DefaultLANConfig()
	ml.Transport = g.net
	ml.BindAddr, ml.BindPort = g.net.addr.Addr().String(), int(g.net.addr.Port())
	ml.AdvertiseAddr, ml.AdvertisePort = ml.BindAddr, ml.BindPort
	ml.Keyring = g.keyring
	ml.GossipVerifyIncoming, ml.GossipVerifyOutgoing = true, true
	ml.ProbeInterval, ml.ProbeTimeout = p.ProbeInterval, p.ProbeTimeout
	ml.SuspicionMult, ml.SuspicionMaxTimeoutMult = p.SuspicionMult, suspicionMaxMult
	ml.AwarenessMaxMultiplier = 4
	ml.GossipInterval = p.GossipInterval
	ml.PushPullInterval = 2 * p.SyncInterval // what of the membership was missed
	ml.TCPTimeout = p.StreamTimeout
	ml.UDPBufferSize = packetBytes
	ml.HandoffQueueDepth = packetsQueued
	// A node that was given a new address takes its name back at once.
	ml.DeadNodeReclaimTime = time.Nanosecond
	// Not a merge delegate: it could only refuse all that another node knows, and
	// a node that one side has not been told of yet would keep the two apart.
	ml.Alive = g.door
	ml.Logger = newLogAdapter(g.cfg.Logger)

	conf := serf.DefaultConfig()
	conf.NodeName = g.cfg.NodeID
	conf.Tags = map[string]string{nameTag: g.cfg.Name, epochTag: strconv.FormatUint(g.table.At().Epoch, 10)}
	conf.MemberlistConfig = ml
	conf.EventCh = g.events
	conf.Logger = ml.Logger
	conf.UserEventSizeLimit = eventBytesMax + 200
	conf.MaxQueueDepth = broadcastsMax
	conf.QueueDepthWarning = broadcastsMax / 2
	conf.QueueCheckInterval = p.SyncInterval
	conf.ReconnectInterval = p.RejoinInterval * 10
	conf.LeavePropagateDelay = p.ProbeInterval * 2
	conf.BroadcastTimeout = p.StreamTimeout
	// A node must not be voted out of its own daemon; ids are unique.
	conf.EnableNameConflictResolution = false
	conf.DisableCoordinates = true
	return conf
}

// Leave tells the others that the node goes away on purpose. The gossip is of no
// use afterwards but to Shutdown.
func (g *Gossip) Leave(ctx context.Context) error {
	done := make(chan error, 1)
	g.wg.Go(func() {
		// A join that is still under way would announce the node after its
		// farewell, and it would be taken for failed.
		g.joinMu.Lock()
		g.leaving = true
		g.joinMu.Unlock()
		done <- g.serf.Leave()
	})
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("leave gossip: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leave gossip: %w", ctx.Err())
	}
}

// Shutdown stops at once, as a crash would for the others, and waits for all of
// its goroutines. It may be called again.
func (g *Gossip) Shutdown() error {
	if g.closed.Swap(true) {
		return nil
	}
	g.cancel()
	g.peers.close()
	err := g.serf.Shutdown()
	closeErr := g.net.Shutdown() // Serf has done so already, unless it failed
	close(g.eventsEnd)
	g.wg.Wait()
	if err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("shut gossip down: %w", err)
	}
	return nil
}

// eventLoop moves Serf's events into the table. It calls nothing of Serf's.
func (g *Gossip) eventLoop() {
	for {
		select {
		case ev := <-g.events:
			g.handle(ev)
		case <-g.eventsEnd:
			return
		}
	}
}

func (g *Gossip) handle(ev serf.Event) {
	switch ev := ev.(type) {
	case serf.MemberEvent:
		if ev.Type == serf.EventMemberJoin {
			g.mu.Lock()
			for _, m := range ev.Members {
				if m.Name != g.cfg.NodeID {
					g.greet[m.Name] = struct{}{}
				}
			}
			g.mu.Unlock()
		}
		kick(g.membersKick)
	case serf.UserEvent:
		g.stats.eventsIn.Add(1)
		g.take(ev)
	}
}

const (
	eventDelta = "d"
	eventHint  = "h"
)

// take merges a delta or notes a hint. What cannot be read is counted and left
// to the digests.
func (g *Gossip) take(ev serf.UserEvent) {
	switch ev.Name {
	case eventDelta:
		records, err := endpoint.DecodeRecords(ev.Payload)
		if err != nil {
			g.stats.corrupt.Add(1)
			return
		}
		if len(records) > 0 && records[0].Owner == g.cfg.NodeID && !g.table.At().Before(records[len(records)-1].At()) {
			return // our own event, come round
		}
		g.merged(g.table.Merge(admitted(g.door, records, func(r endpoint.Record) string { return r.Owner })))
	case eventHint:
		owner, at, err := decodeHint(ev.Payload)
		if err != nil {
			g.stats.corrupt.Add(1)
			return
		}
		g.hint(owner, at)
	}
	kick(g.gapKick)
}

// merged looks after records that were news: an owner that is not a live member
// must be marked as down.
func (g *Gossip) merged(news []endpoint.Record) {
	g.stats.recordsIn.Add(uint64(len(news)))
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range news {
		if _, ok := g.alive[r.Owner]; !ok {
			kick(g.membersKick)
			return
		}
	}
}

func kick(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// wait returns false when the gossip is shut down before d has passed.
func (g *Gossip) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-g.ctx.Done():
		return false
	}
}
