package gossip

import (
	"math/rand/v2"
	"time"

	"shoal/overlay/endpoint"
)

// gapPlan decides when to ask for what is missing: per owner first after a short
// wait, since a delta may only be late, then after twice as long each time. One
// owner that nobody can tell about does not delay the others.
type gapPlan struct {
	// first and most are the shortest and longest wait.
	first, most time.Duration
	due         map[string]gapTry
}

type gapTry struct {
	at    time.Time
	delay time.Duration
}

// next takes the owners that are behind now, those of them in urgent without the
// first wait, and returns which to ask for and how long to sleep after that, 0
// if nothing is left to do.
func (p *gapPlan) next(now time.Time, behind []string, urgent map[string]bool) (ask []string, sleep time.Duration) {
	due := make(map[string]gapTry, len(behind))
	for _, owner := range behind {
		try, ok := p.due[owner]
		if !ok {
			try = gapTry{at: now.Add(p.first), delay: p.first}
		}
		if urgent[owner] && (!ok || try.at.Sub(now) > p.first) {
			try = gapTry{at: now, delay: p.first}
		}
		if !try.at.After(now) {
			ask = append(ask, owner)
			try.at = now.Add(try.delay)
			try.delay = min(2*try.delay, p.most)
		}
		due[owner] = try
		if left := try.at.Sub(now); sleep == 0 || left < sleep {
			sleep = left
		}
	}
	p.due = due
	return ask, sleep
}

// gapLoop pulls what is known to be missing.
func (g *Gossip) gapLoop() {
	plan := gapPlan{first: g.pace.GapDelay, most: g.pace.SyncInterval}
	var sleep time.Duration
	for {
		var timer <-chan time.Time
		if sleep > 0 {
			timer = time.After(sleep)
		}
		select {
		case <-g.gapKick:
		case <-timer:
		case <-g.ctx.Done():
			return
		}
		// Every event kicks: this keeps a burst of them from spinning here, and
		// spreads the pulls that one hint sets off on many nodes.
		if !g.wait(time.Duration(rand.Int64N(int64(g.pace.GapDelay)/4 + 1))) {
			return
		}
		var ask []string
		ask, sleep = plan.next(time.Now(), g.table.Behind(), g.takeUrgent())
		g.closeGaps(ask)
	}
}

func (g *Gossip) takeUrgent() map[string]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	urgent := g.urgent
	g.urgent = map[string]bool{}
	return urgent
}

// hint takes in that an owner is said to have written up to a position, unless it is
// one whose writes are not taken in.
func (g *Gossip) hint(owner string, at endpoint.Position) (behind bool) {
	if g.door.refusal(owner) != nil || !g.table.Hint(owner, at) {
		return false
	}
	g.hurry(owner)
	return true
}

// hurry notes that an owner is said to have written up to a position that the
// table has not reached, and that no delta will bring.
func (g *Gossip) hurry(owner string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.urgent) < urgentMax {
		g.urgent[owner] = true
	}
}

// urgentMax bounds the owners noted between two rounds of gapLoop.
const urgentMax = 1024
