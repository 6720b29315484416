package endpoint

import (
	"maps"
	"slices"
)

// Digest sums up the table, for comparing with others'. The own entry is left
// out while the table is held.
func (t *Table) Digest() Digest {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := make(Digest, 0, len(t.owners))
	for id, o := range t.owners {
		if id == t.self && t.held {
			continue
		}
		d = append(d, o.digest(id))
	}
	return sortDigest(d)
}

// DigestOf is the part of Digest about the given owners. An owner that is not
// known has an entry with nothing but its name.
func (t *Table) DigestOf(owners ...string) Digest {
	t.mu.Lock()
	defer t.mu.Unlock()
	var d Digest
	for _, id := range owners {
		if o, ok := t.owners[id]; ok && !(id == t.self && t.held) {
			d = append(d, o.digest(id))
		} else {
			d = append(d, DigestEntry{Owner: id})
		}
	}
	return sortDigest(d)
}

// Diff compares a peer's digest with the table and returns what to ask the peer
// for. If the digest shows that the peer holds own writes this table has not made,
// or other contents for the same writes, the table starts a higher epoch: so an
// owner whose memory was set back prevails over its own past.
func (t *Table) Diff(remote Digest) []Want {
	t.mu.Lock()
	defer t.mu.Unlock()
	var wants []Want
	for _, offer := range remote {
		if offer.Epoch == 0 || offer.Epoch > EpochMax {
			continue
		}
		if offer.Owner == t.self {
			t.review(offer)
			continue
		}
		if _, ok := t.gone[offer.Owner]; ok {
			continue
		}
		var have DigestEntry
		if o, ok := t.owners[offer.Owner]; ok {
			have = o.digest(offer.Owner)
		}
		if want, ok := lacks(have, offer); ok {
			wants = append(wants, want)
		}
	}
	return wants
}

// review compares what a peer holds of the own records with what was written.
func (t *Table) review(offer DigestEntry) {
	t.outdo(Position{offer.Epoch, max(offer.Done, offer.Max)})
	own := t.owners[t.self]
	same := offer.Epoch == own.epoch && offer.Done == own.done && offer.Max == own.done
	if same && offer.Sum != own.sum && own.epoch < EpochMax {
		t.renumber(own.epoch + 1)
	}
}

// Lacking returns what the peer with the given digest should be sent. With whole,
// the digest is of all the peer's owners, and one it does not name is unknown to it.
func (t *Table) Lacking(remote Digest, whole bool) []Want {
	t.mu.Lock()
	defer t.mu.Unlock()
	theirs := remote.byOwner()
	var wants []Want
	for _, id := range slices.Sorted(maps.Keys(t.owners)) {
		have, named := theirs[id]
		if id == t.self && t.held || !named && !whole {
			continue
		}
		if want, ok := lacks(have, t.owners[id].digest(id)); ok {
			wants = append(wants, want)
		}
	}
	return wants
}

// SetsFor answers wants, in their order, until the answer reaches about bytesMax;
// more is true when wants were left over. A set is never cut, and at least one is
// returned if any is known.
func (t *Table) SetsFor(wants []Want, bytesMax int) (sets []Set, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := 0
	for _, want := range wants {
		o, ok := t.owners[want.Owner]
		if !ok || want.Owner == t.self && t.held {
			continue
		}
		since := want.Since
		if want.Epoch != o.epoch || since > o.done {
			since = 0
		}
		if size >= bytesMax {
			return sets, true
		}
		s := o.set(want.Owner, since)
		size += s.size()
		sets = append(sets, s)
	}
	return sets, false
}

// Hint notes that an owner is said to have written up to at, and reports whether
// the table is behind that.
func (t *Table) Hint(owner string, at Position) (behind bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.gone[owner]; ok || owner == "" || at.Epoch == 0 || at.Epoch > EpochMax {
		return false
	}
	if owner == t.self {
		t.outdo(at)
		return false
	}
	if !t.reached(owner).Before(at) {
		return false
	}
	if old, ok := t.hints[owner]; ok && !old.Before(at) || ok || len(t.hints) < ownersMax {
		t.hints[owner] = maxPosition(old, at)
	}
	return true
}

// Behind lists the owners, sorted, of whom a write is known to be missing: there
// is a gap in what came, or a hint at more.
func (t *Table) Behind() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var owners []string
	for id, at := range t.hints {
		if !t.reached(id).Before(at) {
			delete(t.hints, id)
			continue
		}
		owners = append(owners, id)
	}
	for id, o := range t.owners {
		if _, hinted := t.hints[id]; !hinted && len(o.ahead) > 0 {
			owners = append(owners, id)
		}
	}
	slices.Sort(owners)
	return owners
}

// reached is how far everything of an owner is accounted for.
func (t *Table) reached(owner string) Position {
	o, ok := t.owners[owner]
	if !ok {
		return Position{}
	}
	return Position{o.epoch, o.done}
}

func maxPosition(a, b Position) Position {
	if a.Before(b) {
		return b
	}
	return a
}
