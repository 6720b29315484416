package endpoint

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

func val(service string, networks ...string) Value {
	v := Value{ServiceID: service, ServiceName: service, VTEP: netip.MustParseAddr("10.77.0.1")}
	for i, n := range networks {
		v.Attachments = append(v.Attachments, Attachment{NetworkID: n, MAC: fmt.Sprintf("02:42:0a:00:00:%02x", i), Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.5")}})
	}
	return v
}

// exchange lets two tables give each other what the other lacks, as gossip does.
func exchange(a, b *Table) {
	da := a.Digest()
	wants := b.Diff(da)
	forA, _ := b.SetsFor(b.Lacking(da, true), 1<<30)
	a.MergeSets(forA)
	forB, _ := a.SetsFor(wants, 1<<30)
	b.MergeSets(forB)
}

func keys(records []Record) []string {
	var out []string
	for _, r := range records {
		out = append(out, r.Owner+"/"+r.Key)
	}
	return out
}

func TestWritesAreNumbered(t *testing.T) {
	tab := New("a", 3)
	r1 := tab.Set("t1", val("web"))
	r2 := tab.Set("t2", val("web"))
	if r1.At() != (Position{3, 1}) || r2.At() != (Position{3, 2}) {
		t.Fatalf("positions %v, %v", r1.At(), r2.At())
	}
	version := tab.View().Version()
	if again := tab.Set("t1", val("web")); again.At() != r1.At() || tab.View().Version() != version {
		t.Errorf("an unchanged value was written anew: %v", again.At())
	}
	if _, ok := tab.Remove("none"); ok || tab.At().Seq != 2 {
		t.Error("removing nothing was a write")
	}
	tomb, ok := tab.Remove("t1")
	if !ok || !tomb.Deleted || tomb.At() != (Position{3, 3}) || !reflect.DeepEqual(tomb.Value, Value{}) {
		t.Errorf("tombstone %+v", tomb)
	}
	if got := keys(tab.View().All()); !slices.Equal(got, []string{"a/t2"}) {
		t.Errorf("live: %v", got)
	}
}

func TestTheTableKeepsNoReference(t *testing.T) {
	tab := New("a", 1)
	v := val("web", "n1")
	v.Attachments[0].Aliases = []string{"x"}
	tab.Set("t", v)
	v.Attachments[0].Aliases[0], v.Attachments[0].NetworkID = "y", "n2"
	if r, _ := tab.View().Record("a", "t"); r.Value.Attachments[0].Aliases[0] != "x" || r.Value.Attachments[0].NetworkID != "n1" {
		t.Errorf("the record changed with the caller's value: %+v", r.Value)
	}
}

func TestViewsDoNotChange(t *testing.T) {
	a, b := New("a", 1), New("b", 1)
	a.Set("t1", val("web", "n1", "n2"))
	a.Set(NodeKey, val(""))
	b.Set("t2", val("db", "n1"))
	exchange(a, b)
	v := a.View()
	changed := a.Changed()
	a.SetDown("b")
	select {
	case <-changed:
	default:
		t.Error("a change did not wake anybody")
	}
	a.Remove("t1")
	for what, got := range map[string][]Record{"all": v.All(), "n1": v.ByNetwork("n1"), "usable": v.Usable("n1")} {
		want := map[string][]string{"all": {"a/node", "a/t1", "b/t2"}, "n1": {"a/t1", "b/t2"}, "usable": {"a/t1", "b/t2"}}[what]
		if !slices.Equal(keys(got), want) {
			t.Errorf("%s in the old view: %v, want %v", what, keys(got), want)
		}
	}
	now := a.View()
	if now.Version() <= v.Version() || !now.Down("b") || v.Down("b") {
		t.Error("the new view does not differ from the old one")
	}
	if got := keys(now.Usable("n1")); len(got) != 0 {
		t.Errorf("usable with the owner down: %v", got)
	}
	if got := keys(now.ByService("db")); !slices.Equal(got, []string{"b/t2"}) {
		t.Errorf("records of a service: %v", got)
	}
	if _, ok := now.Node("a"); !ok {
		t.Error("no record of the node itself")
	}
	if _, ok := now.Record("a", "t1"); ok {
		t.Error("a removed record is still there")
	}
	if now.At("b") != (Position{1, 1}) || now.At("nobody") != (Position{}) {
		t.Errorf("positions %v, %v", now.At("b"), now.At("nobody"))
	}
	if a.SetDown("b") {
		t.Error("repeating SetDown was a change")
	}
}

func TestALostDeltaIsNoticed(t *testing.T) {
	a, b := New("a", 1), New("b", 1)
	r1, r2, r3 := a.Set("t1", val("web")), a.Set("t2", val("web")), a.Set("t3", val("web"))
	b.Merge([]Record{r1, r3})
	if got := b.Behind(); !slices.Equal(got, []string{"a"}) {
		t.Fatalf("behind %v with a gap", got)
	}
	if at := b.View().At("a"); at.Seq != 1 {
		t.Errorf("accounted for up to %d, want 1", at.Seq)
	}
	if news := b.Merge([]Record{r2, r2, r1}); len(news) != 1 || len(b.Behind()) != 0 || b.View().At("a").Seq != 3 {
		t.Errorf("after the late delta: news %v, behind %v", keys(news), b.Behind())
	}
	if !b.Hint("a", Position{1, 9}) || b.Hint("a", Position{1, 3}) || !slices.Equal(b.Behind(), []string{"a"}) {
		t.Errorf("hints: behind %v", b.Behind())
	}
}

func TestDeletionsNeedNoTombstone(t *testing.T) {
	a, b, c := New("a", 1), New("b", 1), New("c", 1)
	old := a.Set("t1", val("web"))
	a.Set("t2", val("web"))
	exchange(a, b)
	exchange(a, c)
	tomb, _ := a.Remove("t1")
	b.Merge([]Record{tomb})
	if n := len(b.owners["a"].tombs) + len(a.owners["a"].tombs); n != 0 {
		t.Errorf("%d tombstones kept", n)
	}
	if news := b.Merge([]Record{old}); len(news) != 0 || len(b.View().Owner("a")) != 1 {
		t.Error("a late delta brought a deleted record back")
	}
	exchange(c, b) // c still has it, b not
	for _, tab := range []*Table{b, c} {
		if got := keys(tab.View().Owner("a")); !slices.Equal(got, []string{"a/t2"}) {
			t.Errorf("%s holds %v", tab.Self(), got)
		}
	}
}

func TestANewEpochVoidsTheOldOne(t *testing.T) {
	b := New("b", 1)
	a := New("a", 1)
	late := a.Set("t1", val("web"))
	a.Set("t2", val("web"))
	exchange(a, b)

	a = New("a", 2)
	a.Hold()
	a.Set("t2", val("web"))
	exchange(a, b)
	if got := keys(b.View().Owner("a")); !slices.Equal(got, []string{"a/t1", "a/t2"}) {
		t.Errorf("while the owner holds: %v", got)
	}
	a.Open()
	b.Hint("a", a.At())
	exchange(b, a)
	if got := b.View().Owner("a"); len(got) != 1 || got[0].Key != "t2" || got[0].Epoch != 2 {
		t.Errorf("after the owner opened: %v", got)
	}
	if news := b.Merge([]Record{late}); len(news) != 0 {
		t.Error("a record of an old epoch was taken in")
	}
}

// TestOldRecordsAreKnownToBeOld: a later write of the new epoch does not make views
// show the new one.
func TestOldRecordsAreKnownToBeOld(t *testing.T) {
	b := New("b", 1)
	a := New("a", 1)
	a.Set("t1", val("web"))
	exchange(a, b)
	a = New("a", 2)
	first, second := a.Set("t2", val("web")), a.Set("t3", val("web"))
	if b.Shows("c", 1) || !b.Shows("a", 1) || b.Shows("a", 2) {
		t.Error("before anything of the new epoch is heard")
	}
	b.Merge([]Record{second})
	if got := keys(b.View().Owner("a")); b.Shows("a", 2) || !slices.Equal(got, []string{"a/t1"}) {
		t.Errorf("beyond a gap: shows %v, the new epoch: %v", got, b.Shows("a", 2))
	}
	b.Merge([]Record{first})
	if !b.Shows("a", 2) || b.Shows("a", 3) {
		t.Error("the new epoch is not shown")
	}
}

func TestOpeningWithNothingVoidsTheOldRecords(t *testing.T) {
	a, b := New("a", 1), New("b", 1)
	a.Set("t1", val("web"))
	exchange(a, b)
	a = New("a", 2)
	a.Hold()
	a.Open()
	exchange(a, b)
	if got := b.View().Owner("a"); len(got) != 0 {
		t.Errorf("left: %v", keys(got))
	}
}

func TestAnOwnerWithoutMemoryPrevails(t *testing.T) {
	b := New("b", 1)
	a := New("a", 7)
	a.Set("old", val("web"))
	exchange(a, b)
	a = New("a", 1) // the epoch on disk is lost
	a.Set("new", val("web"))
	exchange(a, b)
	exchange(a, b)
	if a.At().Epoch != 8 {
		t.Errorf("epoch %d, want 8", a.At().Epoch)
	}
	if got := keys(b.View().Owner("a")); !slices.Equal(got, []string{"a/new"}) {
		t.Errorf("others hold %v", got)
	}
	// The same numbers with other contents.
	a = New("a", 8)
	a.Set("other", val("web"))
	exchange(a, b)
	exchange(a, b)
	if got := keys(b.View().Owner("a")); !slices.Equal(got, []string{"a/other"}) {
		t.Errorf("after reused numbers others hold %v", got)
	}
}

func TestForgottenStaysForgotten(t *testing.T) {
	a, b, c := New("a", 1), New("b", 1), New("c", 1)
	r := a.Set("t1", val("web"))
	exchange(a, b)
	exchange(b, c)
	b.Forget("a")
	exchange(c, b)
	b.Merge([]Record{r})
	if slices.Contains(b.Owners(), "a") || b.Hint("a", Position{5, 5}) {
		t.Error("a forgotten owner is back")
	}
	b.Forget("b")
	if !slices.Contains(b.Owners(), "b") {
		t.Error("a table forgot itself")
	}
}

func TestSetsAreBounded(t *testing.T) {
	hub := New("hub", 1)
	for i := range 20 {
		o := New(fmt.Sprintf("o%02d", i), 1)
		for k := range 10 {
			o.Set(fmt.Sprintf("t%d", k), val("web", "n1"))
		}
		exchange(hub, o)
	}
	fresh := New("fresh", 1)
	rounds := 0
	for more := true; more; rounds++ {
		var sets []Set
		sets, more = hub.SetsFor(hub.Lacking(fresh.Digest(), true), 2000)
		if len(sets) == 0 || len(sets) > 5 {
			t.Fatalf("%d sets in one answer", len(sets))
		}
		fresh.MergeSets(sets)
	}
	if n := len(fresh.View().All()); n != 200 || rounds < 5 {
		t.Errorf("%d records after %d rounds", n, rounds)
	}
}

func TestUnsoundInputIsRefused(t *testing.T) {
	tab := New("me", 1)
	bad := []Set{
		{}, {Owner: "a"}, {Owner: "a", Epoch: EpochMax + 1},
		{Owner: "a", Epoch: 1, Done: 5, Live: []uint64{3}},
		{Owner: "a", Epoch: 1, Done: 5, Live: []uint64{6}},
		{Owner: "a", Epoch: 1, Done: 5, Ahead: []uint64{5}},
		{Owner: "a", Epoch: 1, Done: 5, Since: 5, Live: []uint64{3, 2}},
		{Owner: "a", Epoch: 1, Done: 1, Live: []uint64{1}, Records: []Record{{Owner: "b", Key: "k", Epoch: 1, Seq: 1}}},
	}
	if news := tab.MergeSets(bad); len(news) > 0 || len(tab.Owners()) != 1 {
		t.Errorf("taken in: %v, owners %v", news, tab.Owners())
	}
	tab.Merge([]Record{{}, {Owner: "a"}, {Owner: "a", Key: "k", Epoch: 1}, {Owner: "a", Key: "k", Epoch: EpochMax + 1, Seq: 1}})
	if len(tab.Owners()) != 1 {
		t.Errorf("owners %v", tab.Owners())
	}
}
