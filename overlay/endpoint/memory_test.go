package endpoint

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// reborn is the next table of a node: one epoch higher, held, with its memory.
func reborn(t interface{ Fatal(...any) }, old *Table) *Table {
	next := New(old.Self(), old.At().Epoch+1)
	next.Hold()
	if err := next.Remember(old.Memory()); err != nil {
		t.Fatal(err)
	}
	return next
}

// TestAllStartAgainAtOnce: when every daemon starts anew at the same moment, each
// shows what was there before until it knows better, and then all agree.
func TestAllStartAgainAtOnce(t *testing.T) {
	a, b := New("a", 1), New("b", 1)
	for _, tab := range []*Table{a, b} {
		tab.Set(NodeKey, val(""))
		tab.Set(tab.Self()+"1", val("web", "n1"))
		tab.Set(tab.Self()+"2", val("web", "n1"))
	}
	exchange(a, b)
	a, b = reborn(t, a), reborn(t, b)
	want := []string{"a/a1", "a/a2", "a/node", "b/b1", "b/b2", "b/node"}
	check := func(when string, want ...string) {
		t.Helper()
		for _, tab := range []*Table{a, b} {
			if got := keys(tab.View().All()); !slices.Equal(got, want) {
				t.Errorf("%s %s shows %v, want %v", when, tab.Self(), got, want)
			}
		}
	}
	check("after the start", want...)
	exchange(a, b)
	check("after the first contact", want...)
	a.Set(NodeKey, val(""))
	a.Set("a1", val("web", "n1"))
	if _, written := a.Remove("a2"); written { // it did not outlive the restart
		t.Error("a record of the earlier run was deleted in this one")
	}
	if got := keys(a.View().Owner("a")); !slices.Equal(got, []string{"a/a1", "a/node"}) {
		t.Errorf("a shows of its own %v", got)
	}
	exchange(a, b)
	if got := keys(b.View().Owner("a")); !slices.Equal(got, []string{"a/a1", "a/a2", "a/node"}) {
		t.Errorf("before a opens b shows of it %v", got)
	}
	a.Open()
	b.Open() // nothing of b's is left
	exchange(a, b)
	check("in the end", "a/a1", "a/node")
	if a.Digest().Sum() != b.Digest().Sum() {
		t.Error("the digests differ")
	}
}

// TestMemoryIsWhatIsShown: a table remembers of others exactly what it knew.
func TestMemoryIsWhatIsShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(rapid.IntRange(2, 4).Draw(t, "nodes"))
		t.Repeat(w.actions(false))
		_, old := w.table(t)
		next := reborn(t, old)
		for _, owner := range old.Owners() {
			if o := old.owners[owner]; owner != old.Self() && o.done == 0 {
				continue // it is about to tell of itself
			}
			if a, b := old.View().Owner(owner), next.View().Owner(owner); !sameRecords(a, b) {
				t.Fatalf("%s knew of %s\n%v\nand remembers\n%v", old.Self(), owner, a, b)
			}
		}
	})
}

func TestDamagedMemoryIsRefused(t *testing.T) {
	tab := New("a", 1)
	tab.Set("t1", val("web", "n1"))
	good := tab.Memory()
	for name, bad := range map[string][]byte{
		"empty": nil, "short": good[:len(good)-1], "other": []byte("something else"),
		"changed": append(slices.Clone(good[:len(good)-1]), good[len(good)-1]^1),
	} {
		fresh := New("a", 2)
		if err := fresh.Remember(bad); !errors.Is(err, errMemory) || len(fresh.View().All()) != 0 {
			t.Errorf("%s: %v, shows %v", name, err, fresh.View().All())
		}
	}
}

func FuzzRemember(f *testing.F) {
	tab := New("a", 1)
	tab.Set("t1", val("web", "n1"))
	f.Add(tab.Memory())
	f.Fuzz(func(t *testing.T, b []byte) {
		next := New("a", 2)
		next.Hold()
		if next.Remember(b) == nil {
			reborn(t, next)
		}
	})
}
