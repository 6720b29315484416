package gossip

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// idleTimeouts is how many StreamTimeouts a ProtocolPull stream may lie idle. One of a
// node that is not admitted has a single one to ask something and hear why not.
const idleTimeouts = 20

// serve answers the requests on one stream, one after the other, while the node at
// its other end is admitted.
func (g *Gossip) serve(conn *tls.Conn) {
	defer conn.Close()
	peer := peerOf(conn.ConnectionState())
	for g.ctx.Err() == nil {
		idle := idleTimeouts * g.pace.StreamTimeout
		if g.door.refusal(peer) != nil {
			idle = g.pace.StreamTimeout
		}
		if conn.SetDeadline(time.Now().Add(idle)) != nil {
			return
		}
		kind, body, err := readFrame(conn)
		if err != nil {
			if errors.Is(err, errFrame) {
				g.stats.corrupt.Add(1)
			}
			return
		}
		if refused := g.door.refusal(peer); refused != nil {
			g.cfg.Logger.Info("refused gossip request", "from", conn.RemoteAddr().String(), "err", refused)
			_ = writeFrame(conn, kindRefused, []byte(refused.Error())) // who does not hear it finds the stream closed
			return
		}
		if err := g.answer(conn, kind, body); err != nil {
			g.stats.corrupt.Add(1)
			g.cfg.Logger.Info("gossip request failed", "from", conn.RemoteAddr().String(), "err", err)
			return
		}
	}
}

func (g *Gossip) answer(w io.Writer, kind byte, body []byte) error {
	switch kind {
	case kindSum:
		return g.answerSum(w, body)
	case kindDigest:
		return g.answerDigest(w, body)
	case kindPush:
		a, err := decodeSetsAnswer(body)
		if err != nil {
			return fmt.Errorf("push: %w", err)
		}
		g.mergeSets(a.Sets)
		kick(g.gapKick)
		return writeFrame(w, kindTaken, nil)
	case kindApplied:
		return g.answerApplied(w, body)
	}
	return fmt.Errorf("%w: kind %d", errFrame, kind)
}

func (g *Gossip) answerSum(w io.Writer, body []byte) error {
	if len(body) != 8 {
		return fmt.Errorf("sum: %w", errFrame)
	}
	if g.table.Digest().Sum() == binary.BigEndian.Uint64(body) {
		return writeFrame(w, kindSame, nil)
	}
	return writeFrame(w, kindDiffers, nil)
}

func (g *Gossip) answerDigest(w io.Writer, body []byte) error {
	req, err := decodeDigestRequest(body)
	if err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	g.stats.pullsServed.Add(1)
	a := setsAnswer{Wants: g.table.Diff(req.Digest)}
	a.Sets, a.More = g.table.SetsFor(g.table.Lacking(req.Digest, req.Whole), answerBytes)
	return writeFrame(w, kindSets, a.encode())
}

// answerApplied waits until the position is applied on some network, at most as long
// as asked and within a StreamTimeout, and says how far it got on which.
func (g *Gossip) answerApplied(w io.Writer, body []byte) error {
	req, err := decodeAppliedRequest(body)
	if err != nil {
		return fmt.Errorf("applied: %w", err)
	}
	if g.hint(req.Owner, req.At) {
		kick(g.gapKick)
	}
	ctx, cancel := context.WithTimeout(g.ctx, min(req.Wait, g.pace.StreamTimeout/2))
	defer cancel()
	return writeFrame(w, kindReached, g.waitApplied(ctx, req.Owner, req.At, []string{}).encode())
}
