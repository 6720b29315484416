package gossip

import (
	"fmt"
	"time"

	"shoal/overlay/endpoint"
)

const (
	// publishQueued is how many records may wait for their event; when there
	// are more, one hint takes the place of them all.
	publishQueued = 512
	// eventsBacklog is the number of waiting broadcasts at which sending
	// hints, and letting others pull, spreads news sooner than more events.
	eventsBacklog = 128
)

// Publish spreads own records that the table has just written. It does not block.
// Records that come one by one within BatchDelay share events. It is only the fast
// way: what is in the table reaches the others in any case.
func (g *Gossip) Publish(records []endpoint.Record) {
	g.mu.Lock()
	g.queue = append(g.queue, records...)
	g.mu.Unlock()
	kick(g.publishKick)
}

// publishLoop sends what Publish queued, and a hint for own writes that nobody
// published.
func (g *Gossip) publishLoop() {
	for {
		changed := g.table.Changed()
		select {
		case <-g.publishKick:
		case <-changed:
		case <-g.ctx.Done():
			return
		}
		if !g.wait(g.pace.BatchDelay) {
			return
		}
		g.flush()
		if g.behindOwn() {
			// Give Publish, which follows the write, time to be called.
			if !g.wait(g.pace.GossipInterval) {
				return
			}
			g.flush()
			g.hintOwn()
		}
	}
}

func (g *Gossip) behindOwn() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.table.Held() && maxPosition(g.published, g.hinted).Before(g.table.At())
}

// flush sends the queued records.
func (g *Gossip) flush() {
	g.mu.Lock()
	records := g.queue
	g.queue = nil
	g.mu.Unlock()
	if len(records) == 0 || g.table.Held() {
		return
	}
	if len(records) > publishQueued || g.backlog() > eventsBacklog {
		g.hintOwn()
		return
	}
	for len(records) > 0 {
		payload, n := nextBatch(records)
		if payload == nil {
			g.send(eventHint, encodeHint(records[0].Owner, records[0].At()))
		} else {
			g.send(eventDelta, payload)
		}
		g.notePublished(records[n-1].At())
		records = records[n:]
	}
}

// nextBatch encodes as many records as one event carries. The payload is nil
// where the first alone is too large.
func nextBatch(records []endpoint.Record) (payload []byte, n int) {
	for n < len(records) {
		b := endpoint.AppendRecords(nil, records[:n+1])
		if len(b) > eventBytesMax {
			break
		}
		payload = b
		n++
	}
	return payload, max(n, 1)
}

func (g *Gossip) notePublished(at endpoint.Position) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.published = maxPosition(g.published, at)
}

// hintOwn tells the others how far this node has written, if that is news.
func (g *Gossip) hintOwn() {
	at := g.table.At()
	g.mu.Lock()
	news := !g.table.Held() && maxPosition(g.published, g.hinted).Before(at)
	if news {
		g.hinted = at
	}
	g.mu.Unlock()
	if news {
		g.send(eventHint, encodeHint(g.cfg.NodeID, at))
	}
}

// send makes a Serf event. A failure is not retried: the digests will tell.
func (g *Gossip) send(name string, payload []byte) {
	if err := g.serf.UserEvent(name, payload, false); err != nil {
		g.stats.eventsFailed.Add(1)
		g.cfg.Logger.Warn("send gossip event", "err", fmt.Errorf("event %s of %d bytes: %w", name, len(payload), err))
		return
	}
	g.stats.eventsOut.Add(1)
	g.stats.lastEvent.Store(time.Now().UnixNano())
}

// backlog is the number of event broadcasts that wait to be sent.
func (g *Gossip) backlog() int { return atoi(g.serf.Stats()["event_queue"]) }

func maxPosition(a, b endpoint.Position) endpoint.Position {
	if a.Before(b) {
		return b
	}
	return a
}
