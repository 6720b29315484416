package presence

import (
	"slices"
	"testing"

	"shoal/overlay/endpoint"
)

// TestWithdrawn: before the first answer everything is asked for, afterwards the
// networks of what ended since.
func TestWithdrawn(t *testing.T) {
	var w withdrawn
	at := func(seq uint64) endpoint.Position { return endpoint.Position{Epoch: 2, Seq: seq} }
	ended := func(networks ...string) (r endpoint.Record) {
		for _, id := range networks {
			r.Value.Attachments = append(r.Value.Attachments, endpoint.Attachment{NetworkID: id})
		}
		return r
	}
	asks := func(seq uint64, all bool, networks ...string) {
		t.Helper()
		r := w.question("n1", at(seq))
		var got []string
		for _, a := range r.Value.Attachments {
			got = append(got, a.NetworkID)
		}
		if r.Owner != "n1" || r.At() != at(seq) || r.Deleted != all || !slices.Equal(got, networks) {
			t.Errorf("asked for %+v", r)
		}
	}
	w.note(ended("a"), at(3))
	asks(3, true)
	w.asked(at(3), false)
	asks(3, true)
	w.asked(at(3), true)
	asks(4, false)
	w.note(ended("b", "a"), at(5))
	w.note(ended("c"), at(6))
	asks(6, false, "a", "b", "c")
	w.asked(at(5), false) // nobody waits for it any longer
	asks(6, false, "c")
}
