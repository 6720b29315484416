package endpoint

import "sort"

// aheadMax bounds how many sequence numbers of one owner a table holds beyond a
// gap. Deltas beyond it are dropped: the set of the owner brings them.
const aheadMax = 8192

// entry is a record with its content hash and encoded size.
type entry struct {
	rec  Record
	sum  uint64
	size int
}

func newEntry(r Record) entry {
	b := appendRecord(nil, r)
	return entry{rec: r, sum: hashBytes(b), size: len(b)}
}

// ownerState is what a table knows of one owner's writes. As a value it is the
// set of writes it has seen of the highest epoch, so joining two of them is a
// union: commutative, associative and idempotent.
type ownerState struct {
	epoch uint64
	// done: every write from 1 to here is accounted for.
	done uint64
	// ahead are the writes seen beyond a gap, all greater than done+1.
	ahead map[uint64]struct{}
	live  map[string]entry
	// tombs are deletions not yet covered by done, by key.
	tombs map[string]entry
	// prev are the live records of the epoch before, shown until the first
	// write of this epoch is accounted for.
	prev map[string]entry
	// sum is the wrapping sum of the live entries' hashes.
	sum uint64
	// view is the immutable picture of this owner, nil once something changed.
	view *ownerView
}

func newOwnerState(epoch uint64) *ownerState {
	return &ownerState{epoch: epoch, ahead: map[uint64]struct{}{}, live: map[string]entry{}, tombs: map[string]entry{}}
}

// enter voids what is known when epoch is higher, and reports whether what
// carries epoch still counts.
func (o *ownerState) enter(epoch uint64) bool {
	if epoch < o.epoch {
		return false
	}
	if epoch > o.epoch {
		prev := o.prev
		if o.done > 0 {
			prev = o.live
		}
		*o = *newOwnerState(epoch)
		o.prev = prev
	}
	return true
}

// knows reports whether the write seq of the current epoch is accounted for.
func (o *ownerState) knows(seq uint64) bool {
	_, ok := o.ahead[seq]
	return ok || seq <= o.done
}

// max is the highest write seen.
func (o *ownerState) max() uint64 {
	most := o.done
	for seq := range o.ahead {
		most = max(most, seq)
	}
	return most
}

// add merges one delta and reports whether it was news.
func (o *ownerState) add(r Record) bool {
	if !o.enter(r.Epoch) || o.knows(r.Seq) || len(o.ahead) >= aheadMax && r.Seq != o.done+1 {
		return false
	}
	o.put(r)
	o.ahead[r.Seq] = struct{}{}
	o.advance()
	return true
}

// put lets r win its key when it is the newest write to it.
func (o *ownerState) put(r Record) {
	if old, ok := o.tombs[r.Key]; ok && old.rec.Seq >= r.Seq {
		return
	}
	if old, ok := o.live[r.Key]; ok {
		if old.rec.Seq >= r.Seq {
			return
		}
		o.drop(r.Key)
	}
	delete(o.tombs, r.Key)
	e := newEntry(r)
	if r.Deleted {
		o.tombs[r.Key] = e
	} else {
		o.live[r.Key] = e
		o.sum += e.sum
	}
	o.view = nil
}

func (o *ownerState) drop(key string) {
	if e, ok := o.live[key]; ok {
		o.sum -= e.sum
		delete(o.live, key)
		o.view = nil
	}
}

// advance moves done over what is known beyond it. Deletions that done covers
// need no tombstone: a write that could undo them is at or below done, and such
// a write is never looked at again.
func (o *ownerState) advance() {
	before := o.done
	for {
		if _, ok := o.ahead[o.done+1]; !ok {
			break
		}
		o.done++
		delete(o.ahead, o.done)
	}
	if o.done != before {
		o.settle()
	}
}

// settle forgets what done makes superfluous.
func (o *ownerState) settle() {
	for key, e := range o.tombs {
		if e.rec.Seq <= o.done {
			delete(o.tombs, key)
		}
	}
	o.prev = nil
	o.view = nil
}

// merge joins a set and reports which records were news, whether anything was.
func (o *ownerState) merge(s Set) (news []Record, changed bool) {
	if !o.enter(s.Epoch) {
		return nil, false
	}
	for _, r := range s.Records {
		if !o.knows(r.Seq) {
			o.put(r)
			news = append(news, r)
		}
	}
	changed = len(news) > 0
	for _, r := range s.Records {
		changed = o.note(r.Seq, s) || changed
	}
	for _, seq := range s.Ahead {
		changed = o.note(seq, s) || changed
	}
	if s.Done > o.done && s.Since <= o.done {
		o.adopt(s)
		changed = true
	}
	o.advance()
	return news, changed
}

// note accounts for a write the set knows of beyond its own gap.
func (o *ownerState) note(seq uint64, s Set) bool {
	covered := seq <= s.Done && s.Since <= o.done
	if covered || o.knows(seq) || len(o.ahead) >= aheadMax {
		return false
	}
	o.ahead[seq] = struct{}{}
	return true
}

// adopt takes over that the set is complete up to s.Done: a record at or below
// it which the set does not list has been deleted or replaced since.
func (o *ownerState) adopt(s Set) {
	keep := make(map[uint64]struct{}, len(s.Live))
	for _, seq := range s.Live {
		keep[seq] = struct{}{}
	}
	for key, e := range o.live {
		if _, ok := keep[e.rec.Seq]; !ok && e.rec.Seq <= s.Done {
			o.drop(key)
		}
	}
	o.done = s.Done
	for seq := range o.ahead {
		if seq <= o.done {
			delete(o.ahead, seq)
		}
	}
	o.settle()
}

// set is what this state offers to a peer that is complete up to since.
func (o *ownerState) set(owner string, since uint64) Set {
	s := Set{Owner: owner, Epoch: o.epoch, Done: o.done, Since: since}
	for seq := range o.ahead {
		s.Ahead = append(s.Ahead, seq)
	}
	for _, e := range o.live {
		if e.rec.Seq <= o.done {
			s.Live = append(s.Live, e.rec.Seq)
		}
		if e.rec.Seq > since {
			s.Records = append(s.Records, e.rec)
		}
	}
	for _, e := range o.tombs {
		if e.rec.Seq > since {
			s.Records = append(s.Records, e.rec)
		}
	}
	sort.Slice(s.Records, func(i, j int) bool { return s.Records[i].Seq < s.Records[j].Seq })
	sort.Slice(s.Live, func(i, j int) bool { return s.Live[i] < s.Live[j] })
	sort.Slice(s.Ahead, func(i, j int) bool { return s.Ahead[i] < s.Ahead[j] })
	return s
}

// shown are the entries a view shows.
func (o *ownerState) shown() map[string]entry {
	if o.done == 0 && o.prev != nil {
		return o.prev
	}
	return o.live
}
