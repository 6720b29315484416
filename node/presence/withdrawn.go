package presence

import (
	"maps"
	"slices"
	"sync"

	"shoal/overlay/endpoint"
)

// withdrawn remembers on which networks this node's records ended since all others
// were last asked to confirm that: what concerns other networks needs no word of them.
type withdrawn struct {
	mu   sync.Mutex
	last map[string]endpoint.Position // of a network's last record that ended
	// sure says that what an earlier run of this node had is confirmed as gone.
	sure bool
}

// note takes down that a record ended with the write at that position.
func (w *withdrawn) note(ended endpoint.Record, at endpoint.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last == nil {
		w.last = map[string]endpoint.Position{}
	}
	for _, a := range ended.Value.Attachments {
		w.last[a.NetworkID] = at
	}
}

// question is the record to have confirmed, for all that ended up to that position.
func (w *withdrawn) question(self string, at endpoint.Position) endpoint.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := endpoint.Record{Owner: self, Key: "all", Epoch: at.Epoch, Seq: at.Seq, Deleted: !w.sure}
	if w.sure {
		for _, id := range slices.Sorted(maps.Keys(w.last)) {
			r.Value.Attachments = append(r.Value.Attachments, endpoint.Attachment{NetworkID: id})
		}
	}
	return r
}

// asked forgets what ended up to that position: it is confirmed, or nobody waits for
// it any longer.
func (w *withdrawn) asked(at endpoint.Position, confirmed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sure = w.sure || confirmed
	maps.DeleteFunc(w.last, func(_ string, last endpoint.Position) bool { return !at.Before(last) })
}
