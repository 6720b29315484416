package endpoint

// Position is a point in an owner's history of writes.
type Position struct {
	Epoch uint64
	// Seq counts the writes of the epoch, from 1.
	Seq uint64
}

// Before reports whether p is earlier than q.
func (p Position) Before(q Position) bool {
	return p.Epoch < q.Epoch || p.Epoch == q.Epoch && p.Seq < q.Seq
}

// At is the position of the write that made r.
func (r Record) At() Position { return Position{r.Epoch, r.Seq} }

// Set is one owner's records as a table knows them, for a peer that is complete
// up to Since. It says which writes are still live rather than which were
// undone, so the peer learns of every deletion without any tombstone being kept.
type Set struct {
	Owner string
	Epoch uint64
	// Done: the sender has accounted for every write from 1 to Done.
	Done uint64
	// Since: writes up to it are left out of Records.
	Since uint64
	// Live are the sequence numbers, ascending, of all live records up to Done.
	Live []uint64
	// Ahead are the sequence numbers, ascending, that the sender knows beyond
	// a gap after Done.
	Ahead []uint64
	// Records are the newest writes per key after Since, by sequence number.
	Records []Record
}

// digest sums up what the set says of its owner. Live and Sum count only what the
// set brings, so they are right when Since is 0.
func (s Set) digest() DigestEntry {
	e := DigestEntry{Owner: s.Owner, Epoch: s.Epoch, Done: s.Done, Max: s.Done}
	if n := len(s.Ahead); n > 0 {
		e.Max = s.Ahead[n-1]
	}
	for _, r := range s.Records {
		if !r.Deleted {
			e.Live++
			e.Sum += newEntry(r).sum
		}
	}
	return e
}

// size estimates the encoded length in bytes.
func (s Set) size() int {
	n := len(s.Owner) + 32 + 3*(len(s.Live)+len(s.Ahead))
	for _, r := range s.Records {
		n += len(appendRecord(nil, r))
	}
	return n
}

// valid reports whether the set can have come from a table that keeps the
// rules: what is not may be refused without harm, another peer has a sound one.
func (s Set) valid() bool {
	if s.Owner == "" || s.Epoch == 0 || s.Epoch > EpochMax || !ascending(s.Live, 0, s.Done) || !ascending(s.Ahead, s.Done+1, seqMax) {
		return false
	}
	held := make(map[uint64]struct{}, len(s.Records))
	for _, r := range s.Records {
		if !r.valid() || r.Owner != s.Owner || r.Epoch != s.Epoch || r.Seq <= s.Since {
			return false
		}
		held[r.Seq] = struct{}{}
	}
	for _, seq := range s.Live {
		if _, ok := held[seq]; !ok && seq > s.Since {
			return false // claims a live record and does not bring it
		}
	}
	return true
}

// ascending reports whether seqs rise strictly within (lo-1, hi] and above 0.
func ascending(seqs []uint64, lo, hi uint64) bool {
	last := max(lo, 1) - 1
	for _, seq := range seqs {
		if seq <= last || seq > hi {
			return false
		}
		last = seq
	}
	return true
}

const (
	// EpochMax is the highest epoch a table accepts, so that no peer can
	// drive an owner to the end of the numbers.
	EpochMax = 1 << 60
	seqMax   = 1 << 60
)

func (r Record) valid() bool {
	return r.Owner != "" && r.Key != "" && r.Epoch > 0 && r.Epoch <= EpochMax && r.Seq > 0 && r.Seq <= seqMax
}
