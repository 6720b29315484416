package gossip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"shoal/overlay/endpoint"
)

// A frame on a ProtocolPull stream is its length in four bytes, big-endian, one byte
// for its kind, and its body. The client sends a request and reads one answer.
const (
	kindSum     byte = iota + 1 // request: the sum of my whole digest
	kindSame                    // answer: it equals mine
	kindDiffers                 // answer: it does not
	kindDigest                  // request: my digest, whole or in part
	kindSets                    // answer: what you lack, and what I want
	kindPush                    // request: sets you wanted
	kindTaken                   // answer: I have them
	kindApplied                 // request: tell me when you have applied a position
	kindReached                 // answer: how far I have applied, and which networks are behind
	kindRefused                 // answer to any request: why I answer nothing of yours, as text
)

const (
	// frameBytesMax bounds one frame.
	frameBytesMax = 32 << 20
	// answerBytes is where an answer stops taking in further owners.
	answerBytes = 4 << 20
)

var errFrame = errors.New("corrupt frame")

func writeFrame(w io.Writer, kind byte, body []byte) error {
	if len(body)+1 > frameBytesMax {
		return fmt.Errorf("write frame of %d bytes: more than %d", len(body)+1, frameBytesMax)
	}
	b := binary.BigEndian.AppendUint32(make([]byte, 0, len(body)+5), uint32(len(body)+1))
	_, err := w.Write(append(append(b, kind), body...))
	return err
}

// readFrame reads one frame; memory grows with what really arrives.
func readFrame(r io.Reader) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n == 0 || n > frameBytesMax {
		return 0, nil, fmt.Errorf("%w: length %d", errFrame, n)
	}
	var buf bytes.Buffer
	if _, err := io.CopyN(&buf, r, int64(n)-1); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	return head[4], buf.Bytes(), nil
}

// digestRequest is the body of kindDigest.
type digestRequest struct {
	// Whole: an owner not named is unknown to the asking side.
	Whole  bool
	Digest endpoint.Digest
}

func (r digestRequest) encode() []byte {
	return endpoint.AppendDigest([]byte{flag(r.Whole)}, r.Digest)
}

func decodeDigestRequest(b []byte) (digestRequest, error) {
	if len(b) == 0 || b[0] > 1 {
		return digestRequest{}, errFrame
	}
	d, rest, err := endpoint.DecodeDigest(b[1:])
	if err == nil && len(rest) > 0 {
		err = errFrame
	}
	return digestRequest{Whole: b[0] == 1, Digest: d}, err
}

// setsAnswer is the body of kindSets; kindPush has the same with no wants.
type setsAnswer struct {
	Sets []endpoint.Set
	// More: there is more to be had, ask again.
	More bool
	// Wants is what the answering side would like to be pushed.
	Wants []endpoint.Want
}

func (a setsAnswer) encode() []byte {
	b := endpoint.AppendWants([]byte{flag(a.More)}, a.Wants)
	for _, s := range a.Sets {
		b = endpoint.AppendSet(b, s)
	}
	return b
}

func decodeSetsAnswer(b []byte) (setsAnswer, error) {
	if len(b) == 0 || b[0] > 1 {
		return setsAnswer{}, errFrame
	}
	a := setsAnswer{More: b[0] == 1}
	var err error
	if a.Wants, b, err = endpoint.DecodeWants(b[1:]); err != nil {
		return setsAnswer{}, err
	}
	for len(b) > 0 {
		var s endpoint.Set
		if s, b, err = endpoint.DecodeSet(b); err != nil {
			return setsAnswer{}, err
		}
		a.Sets = append(a.Sets, s)
	}
	return a, nil
}

// appliedRequest is the body of kindApplied.
type appliedRequest struct {
	Owner string
	At    endpoint.Position
	// Wait is how long the answer may take.
	Wait time.Duration
}

func (r appliedRequest) encode() []byte {
	b := appendPosition(nil, r.At)
	b = binary.AppendUvarint(b, uint64(max(r.Wait, 0)/time.Millisecond))
	return append(b, r.Owner...)
}

func decodeAppliedRequest(b []byte) (r appliedRequest, err error) {
	if r.At, b, err = decodePosition(b); err != nil {
		return r, err
	}
	wait, n := binary.Uvarint(b)
	if n <= 0 || len(b) == n {
		return r, errFrame
	}
	r.Wait = time.Duration(min(wait, uint64(time.Hour/time.Millisecond))) * time.Millisecond
	r.Owner = string(b[n:])
	return r, nil
}

// encode is the body of kindReached: a position, and where there are networks that
// are behind, the name and position of each.
func (p progress) encode() []byte {
	b := appendPosition(nil, p.at)
	for _, network := range slices.Sorted(maps.Keys(p.held)) {
		b = append(binary.AppendUvarint(b, uint64(len(network))), network...)
		b = appendPosition(b, p.held[network])
	}
	return b
}

func decodeProgress(b []byte) (p progress, err error) {
	if p.at, b, err = decodePosition(b); err != nil {
		return progress{}, err
	}
	for len(b) > 0 {
		length, n := binary.Uvarint(b)
		if n <= 0 || length > uint64(len(b)-n) {
			return progress{}, errFrame
		}
		network := string(b[n : n+int(length)])
		at, rest, err := decodePosition(b[n+int(length):])
		if err != nil {
			return progress{}, err
		}
		if p.held == nil {
			p.held = map[string]endpoint.Position{}
		}
		p.held[network], b = at, rest
	}
	return p, nil
}

func appendPosition(b []byte, at endpoint.Position) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, at.Epoch), at.Seq)
}

func decodePosition(b []byte) (at endpoint.Position, rest []byte, err error) {
	for _, to := range [...]*uint64{&at.Epoch, &at.Seq} {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return endpoint.Position{}, nil, errFrame
		}
		*to, b = v, b[n:]
	}
	return at, b, nil
}

// encodeHint is the payload of a hint event: owner has written up to at.
func encodeHint(owner string, at endpoint.Position) []byte {
	return append(appendPosition(nil, at), owner...)
}

func decodeHint(b []byte) (owner string, at endpoint.Position, err error) {
	at, rest, err := decodePosition(b)
	if err == nil && len(rest) == 0 {
		err = errFrame
	}
	return string(rest), at, err
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
