package endpoint

import (
	"encoding/binary"
	"sort"
)

// DigestEntry sums up what a table knows of one owner.
type DigestEntry struct {
	Owner string
	Epoch uint64
	// Done: every write from 1 to here is accounted for; Max is the highest
	// write seen, greater than Done where there is a gap.
	Done, Max uint64
	// Live counts the live records, Sum is a hash over their contents that
	// does not depend on their order.
	Live int
	Sum  uint64
}

// Digest has one entry per owner, by owner. Two tables that hold the same have
// equal digests.
type Digest []DigestEntry

// Sum hashes the whole digest into 64 bits.
func (d Digest) Sum() uint64 {
	var b []byte
	for _, e := range d {
		b = appendString(b, e.Owner)
		for _, n := range [...]uint64{e.Epoch, e.Done, e.Max, uint64(e.Live), e.Sum} {
			b = binary.BigEndian.AppendUint64(b, n)
		}
	}
	return hashBytes(b)
}

// Want asks for an owner's records: those after Since, if the table asked still
// knows the owner in Epoch, else all.
type Want struct {
	Owner string
	Epoch uint64
	Since uint64
}

// lacks tells what a table with entry have is missing of what a table with
// entry offer knows. A table whose entry is zero knows nothing of the owner.
func lacks(have, offer DigestEntry) (Want, bool) {
	all := Want{Owner: offer.Owner}
	more := Want{Owner: offer.Owner, Epoch: have.Epoch, Since: have.Done}
	switch {
	case offer.Epoch > have.Epoch:
		return all, true
	case offer.Epoch < have.Epoch:
		return Want{}, false
	case offer.Done > have.Done || offer.Max > have.Max:
		return more, true
	case offer.Sum == have.Sum && offer.Live == have.Live:
		return Want{}, false
	}
	if offer.Max > offer.Done {
		return more, true // same reach, other contents: the gaps are in different places
	}
	// Without gaps contents cannot differ, unless the owner has used numbers
	// twice. The owner repairs that as soon as it sees it; see Table.Diff.
	return all, have.Max <= have.Done
}

func (d Digest) byOwner() map[string]DigestEntry {
	m := make(map[string]DigestEntry, len(d))
	for _, e := range d {
		m[e.Owner] = e
	}
	return m
}

func (o *ownerState) digest(owner string) DigestEntry {
	return DigestEntry{Owner: owner, Epoch: o.epoch, Done: o.done, Max: o.max(), Live: len(o.live), Sum: o.sum}
}

func sortDigest(d Digest) Digest {
	sort.Slice(d, func(i, j int) bool { return d[i].Owner < d[j].Owner })
	return d
}
