package endpoint

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// world is some tables, what their owners wrote, and a network that may deliver
// any delta ever sent to anyone, any number of times, or never.
type world struct {
	tables []*Table
	ids    []string
	sent   []Record
	sets   []Set
	// writes is the history of each owner in each epoch.
	writes map[string]map[uint64][]Record
	// forgetful owners came back with a low epoch: their numbers may be reused.
	forgetful map[string]bool
}

func newWorld(n int) *world {
	w := &world{writes: map[string]map[uint64][]Record{}, forgetful: map[string]bool{}}
	for i := range n {
		id := fmt.Sprintf("n%d", i)
		w.ids = append(w.ids, id)
		w.tables = append(w.tables, New(id, 1))
		w.writes[id] = map[uint64][]Record{}
	}
	return w
}

func (w *world) wrote(r Record) {
	w.sent = append(w.sent, r)
	history := w.writes[r.Owner][r.Epoch]
	if len(history) == 0 || history[len(history)-1].Seq < r.Seq {
		w.writes[r.Owner][r.Epoch] = append(history, r)
	}
}

func (w *world) table(t *rapid.T) (int, *Table) {
	i := rapid.IntRange(0, len(w.tables)-1).Draw(t, "node")
	return i, w.tables[i]
}

func drawKey(t *rapid.T) string {
	return rapid.SampledFrom([]string{"t1", "t2", "t3", "t4"}).Draw(t, "key")
}

func (w *world) actions(withAmnesia bool) map[string]func(*rapid.T) {
	a := map[string]func(*rapid.T){
		"set": func(t *rapid.T) {
			_, tab := w.table(t)
			w.wrote(tab.Set(drawKey(t), val(rapid.StringN(0, 3, 3).Draw(t, "service"))))
		},
		"remove": func(t *rapid.T) {
			_, tab := w.table(t)
			if r, ok := tab.Remove(drawKey(t)); ok {
				w.wrote(r)
			}
		},
		"deliver": func(t *rapid.T) {
			if len(w.sent) == 0 {
				t.Skip("nothing sent")
			}
			_, tab := w.table(t)
			for range rapid.IntRange(1, 5).Draw(t, "n") {
				tab.Merge([]Record{rapid.SampledFrom(w.sent).Draw(t, "delta")})
			}
		},
		"exchange": func(t *rapid.T) {
			i, a := w.table(t)
			if j, b := w.table(t); i != j {
				exchange(a, b)
			}
		},
		"take a set": func(t *rapid.T) { // an answer that may come much later
			_, a := w.table(t)
			_, b := w.table(t)
			sets, _ := a.SetsFor(a.Lacking(b.Digest(), true), 1<<20)
			w.sets = append(w.sets, sets...)
		},
		"deliver a set": func(t *rapid.T) {
			if len(w.sets) == 0 {
				t.Skip("no set taken")
			}
			_, tab := w.table(t)
			tab.MergeSets([]Set{rapid.SampledFrom(w.sets).Draw(t, "set")})
		},
		"restart": func(t *rapid.T) { w.restart(t, false) },
		"":        w.checkNothingResurrected,
	}
	if withAmnesia {
		a["restart without memory"] = func(t *rapid.T) { w.restart(t, true) }
	}
	return a
}

// restart replaces a node's table by an empty one that writes some of its records
// anew, in the next epoch or, without memory, in the first.
func (w *world) restart(t *rapid.T, amnesia bool) {
	i, old := w.table(t)
	epoch := old.At().Epoch + 1
	if amnesia {
		epoch = 1
		w.forgetful[w.ids[i]] = true
	}
	fresh := New(w.ids[i], epoch)
	if hold := rapid.Bool().Draw(t, "hold"); hold {
		fresh.Hold()
		for _, r := range old.View().Owner(w.ids[i]) {
			if rapid.Bool().Draw(t, "keep") {
				// Not sent: others learn of it by the set.
				r = fresh.Set(r.Key, r.Value)
				w.writes[r.Owner][r.Epoch] = append(w.writes[r.Owner][r.Epoch], r)
			}
		}
		fresh.Open()
	} else {
		w.wrote(fresh.Set(NodeKey, val("node")))
	}
	w.tables[i] = fresh
}

// checkNothingResurrected: whatever a table shows of an owner is at least as new
// as the owner's last write to that key up to where the table claims to know all.
func (w *world) checkNothingResurrected(t *rapid.T) {
	for _, tab := range w.tables {
		v := tab.View()
		for _, owner := range w.ids {
			at := v.At(owner)
			if w.forgetful[owner] || at.Seq == 0 {
				continue
			}
			newest := map[string]Record{}
			for _, r := range w.writes[owner][at.Epoch] {
				if r.Seq <= at.Seq {
					newest[r.Key] = r
				}
			}
			for _, r := range v.Owner(owner) {
				if r.Epoch != at.Epoch || r.Deleted || r.Seq < newest[r.Key].Seq {
					t.Fatalf("%s at %v shows %s/%s of %v, newest is %+v", tab.Self(), at, owner, r.Key, r.At(), newest[r.Key])
				}
			}
		}
	}
}

// settle exchanges between all pairs until it must be enough.
func (w *world) settle() {
	for range 4 {
		for i, a := range w.tables {
			for _, b := range w.tables[i+1:] {
				exchange(a, b)
			}
		}
	}
}

func (w *world) checkAgree(t *rapid.T) {
	for i, owner := range w.ids {
		want := w.tables[i].View().Owner(owner)
		for _, tab := range w.tables {
			if got := tab.View().Owner(owner); !sameRecords(got, want) {
				t.Fatalf("%s holds %v of %s, which has %v", tab.Self(), got, owner, want)
			}
			if tab.Digest().Sum() != w.tables[0].Digest().Sum() {
				t.Fatalf("digests differ:\n%+v\n%+v", tab.Digest(), w.tables[0].Digest())
			}
			if n := len(tab.owners[owner].tombs) + len(tab.owners[owner].ahead); n != 0 || len(tab.Behind()) != 0 {
				t.Fatalf("%s keeps %d tombstones and gaps of %s, behind %v", tab.Self(), n, owner, tab.Behind())
			}
		}
	}
}

func sameRecords(a, b []Record) bool {
	return slices.Equal(AppendRecords(nil, a), AppendRecords(nil, b))
}

func TestTablesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(2, 4).Draw(t, "nodes"))
		t.Repeat(w.actions(false))
		w.settle()
		w.checkNothingResurrected(t)
		w.checkAgree(t)
	})
}

func TestTablesConvergeWithAmnesia(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(2, 4).Draw(t, "nodes"))
		t.Repeat(w.actions(true))
		w.settle()
		w.checkAgree(t)
	})
}

// TestMergingHasNoOrder: two tables that got the same messages, in different orders
// and groupings and with repetitions, are equal at once, without any exchange.
func TestMergingHasNoOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(3)
		t.Repeat(w.actions(false))
		for _, tab := range w.tables {
			sets, _ := tab.SetsFor(tab.Lacking(nil, true), 1<<20)
			w.sets = append(w.sets, sets...)
		}
		type message struct {
			set   *Set
			delta Record
		}
		var all []message
		for i := range w.sets {
			if w.sets[i].Since == 0 { // one that builds on others needs them first
				all = append(all, message{set: &w.sets[i]})
			}
		}
		for _, r := range w.sent {
			all = append(all, message{delta: r})
		}
		if len(all) == 0 {
			t.Skip("nothing happened")
		}
		feed := func(label string) *Table {
			tab := New("reader", 1)
			order := append(rapid.Permutation(all).Draw(t, label), rapid.SliceOf(rapid.SampledFrom(all)).Draw(t, label+" again")...)
			for _, m := range order {
				if m.set != nil {
					tab.MergeSets([]Set{*m.set})
				} else {
					tab.Merge([]Record{m.delta})
				}
			}
			return tab
		}
		a, b := feed("first order"), feed("second order")
		if a.Digest().Sum() != b.Digest().Sum() {
			t.Fatalf("digests differ by order:\n%+v\n%+v", a.Digest(), b.Digest())
		}
		if !sameRecords(a.View().All(), b.View().All()) && len(a.Behind())+len(b.Behind()) == 0 {
			t.Fatalf("contents differ by order:\n%v\n%v", a.View().All(), b.View().All())
		}
	})
}
