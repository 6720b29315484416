package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"shoal/overlay/netns"
)

// Port is where every node answers on the probe network, UDP.
const Port = 7947

// Peer is another node of the cluster.
type Peer struct {
	ID, Name string
	// Addr is its address on the probe network, VTEP the one on the underlay.
	Addr, VTEP netip.Addr
}

// Targets is where and whom to test.
type Targets struct {
	// Namespace is this node's end of the probe network, Addr its address there.
	Namespace string
	Addr      netip.Addr
	// MTU is what must pass, in bytes, and Overhead what the tunnel adds to it.
	MTU, Overhead int
	// Port is the tunnel's UDP port, for people.
	Port uint16
	// SoftwareChecksums says that the kernel fills in the checksums already.
	SoftwareChecksums bool
	Peers             []Peer
}

// Config of a Prober; every field is needed.
type Config struct {
	// Targets is asked before every round; peers that are known to be away are
	// not among them.
	Targets func() Targets
	// Soften makes the kernel fill in the checksums of tunnelled packets.
	Soften func()
	// Report takes what is wrong, in words, whenever that changes.
	Report func(messages []string)
	Logger *slog.Logger
}

// The pace of tests: how often targets are looked at, how soon a way is tested
// again that was found good, bad for the first time, and bad again.
const (
	look     = time.Second
	goodFor  = 10 * time.Minute
	doubtFor = time.Second
	badFor   = 10 * time.Second
)

// atOnce bounds how many ways are tested at the same time.
const atOnce = 8

// Prober tests the ways to all peers, again and again.
type Prober struct {
	cfg   Config
	again chan struct{}

	mu      sync.Mutex
	waiting []chan struct{} // closed when what they asked for is known
	status  []Way

	// The loop's own.
	listener *listener
	ways     map[string]*way
	tested   Targets // what the last round was about
	reported []string
}

// way is what is known of the way to one peer.
type way struct {
	due   time.Time
	at    time.Time // of the last test
	bad   int       // how many tests in a row found trouble
	path  Path
	known bool
}

// New returns a Prober; Run makes it work.
func New(cfg Config) *Prober {
	return &Prober{cfg: cfg, again: make(chan struct{}, 1), ways: map[string]*way{}}
}

// Again tests every way now and returns when the result is known.
func (p *Prober) Again(ctx context.Context) error {
	done := make(chan struct{})
	p.mu.Lock()
	p.waiting = append(p.waiting, done)
	p.mu.Unlock()
	select {
	case p.again <- struct{}{}:
	default:
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("test the data path: %w", ctx.Err())
	}
}

// Way is what is known of the way to one node.
type Way struct {
	Peer
	Path
	// Tested is when, zero for not yet.
	Tested time.Time
	// Trouble says what is wrong and the way out, "" for nothing.
	Trouble string
}

// Status lists what the last round knew, by the nodes' names.
func (p *Prober) Status() []Way {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.status)
}

// Run tests and answers until ctx ends.
func (p *Prober) Run(ctx context.Context) {
	defer p.close()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var asked []chan struct{}
	for {
		p.round(ctx)
		if !p.doubts() {
			for _, done := range asked {
				close(done)
			}
			asked = nil
		}
		select {
		case <-ticker.C:
		case <-p.again:
			p.mu.Lock()
			asked, p.waiting = append(asked, p.waiting...), nil
			p.mu.Unlock()
			p.forget()
		case <-ctx.Done():
			return
		}
	}
}

// doubts says whether some trouble has been seen once only.
func (p *Prober) doubts() bool {
	for _, w := range p.ways {
		if w.bad == 1 {
			return true
		}
	}
	return false
}

func (p *Prober) forget() {
	for _, w := range p.ways {
		w.due = time.Time{}
	}
}

// round tests the ways that are due.
func (p *Prober) round(ctx context.Context) {
	t := p.cfg.Targets()
	if len(t.Peers) == 0 {
		p.close()
		p.ways = map[string]*way{}
		p.report(t)
		return
	}
	if err := p.listen(ctx, t); err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // the network is not there yet
			p.cfg.Logger.Warn("the data path is not tested", "error", err)
		}
		return
	}
	if t.MTU != p.tested.MTU || t.SoftwareChecksums != p.tested.SoftwareChecksums {
		p.forget()
	}
	p.tested = t
	p.test(ctx, t, p.due(t))
	p.report(t)
}

// due returns the peers to test now, and forgets those that are none any more.
func (p *Prober) due(t Targets) (peers []Peer) {
	now := time.Now()
	ways := make(map[string]*way, len(t.Peers))
	for _, peer := range t.Peers {
		w := p.ways[peer.ID]
		if w == nil {
			w = &way{}
		}
		ways[peer.ID] = w
		if !w.due.After(now) {
			peers = append(peers, peer)
		}
	}
	p.ways = ways
	return peers
}

// test tests the ways to peers, a few at a time, and notes what it finds.
func (p *Prober) test(ctx context.Context, t Targets, peers []Peer) {
	for some := range slices.Chunk(peers, atOnce) {
		paths, errs := make([]Path, len(some)), make([]error, len(some))
		var all sync.WaitGroup
		for i, peer := range some {
			all.Go(func() {
				paths[i], errs[i] = check(ctx, t.Namespace, netip.AddrPortFrom(peer.Addr, Port), t.MTU)
			})
		}
		all.Wait()
		if ctx.Err() != nil {
			return
		}
		for i, peer := range some {
			if errs[i] != nil {
				p.cfg.Logger.Warn("the data path to a node is not tested", "node", peer.Name, "error", errs[i])
				p.ways[peer.ID].due = time.Now().Add(badFor)
				continue
			}
			p.ways[peer.ID].note(t, paths[i])
		}
	}
	if !t.SoftwareChecksums && p.spoiled() {
		p.cfg.Soften()
	}
}

// note takes the result of a test. Trouble counts from the second time on: the
// first may be a peer that has only just come.
func (w *way) note(t Targets, path Path) {
	now := time.Now()
	w.at = now
	if t.fine(path) {
		w.bad, w.path, w.known = 0, path, true
		w.due = now.Add(goodFor*3/4 + rand.N(goodFor/2))
		return
	}
	w.bad++
	w.due = now.Add(doubtFor)
	if w.bad > 1 {
		w.path, w.known = path, true
		w.due = now.Add(badFor)
	}
}

// spoiled says that some way lets everything pass but packets whose checksum was
// left to the network card.
func (p *Prober) spoiled() bool {
	for _, w := range p.ways {
		if w.known && w.path.Answers && !w.path.Sums {
			return true
		}
	}
	return false
}

// report tells what is wrong if that has changed.
func (p *Prober) report(t Targets) {
	ways := make([]Way, 0, len(t.Peers))
	for _, peer := range t.Peers {
		way := Way{Peer: peer}
		if w := p.ways[peer.ID]; w != nil && w.known {
			way.Path, way.Tested, way.Trouble = w.path, w.at, t.trouble(w.path)
		}
		ways = append(ways, way)
	}
	slices.SortFunc(ways, func(a, b Way) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	p.mu.Lock()
	p.status = ways
	p.mu.Unlock()
	now := t.messages(ways)
	if slices.Equal(now, p.reported) {
		return
	}
	p.reported = now
	p.cfg.Report(now)
}

// listen sees to it that questions are answered in the namespace as it is now.
func (p *Prober) listen(ctx context.Context, t Targets) error {
	id, exists := netns.Identify(t.Namespace)
	if !exists {
		p.close()
		return fs.ErrNotExist
	}
	at := netip.AddrPortFrom(t.Addr, Port)
	if p.listener != nil && p.listener.id == id && p.listener.at == at {
		return nil
	}
	p.close()
	l, err := newListener(ctx, t.Namespace, id, at)
	p.listener = l
	return err
}

func (p *Prober) close() {
	if p.listener != nil {
		p.listener.close()
		p.listener = nil
	}
}
