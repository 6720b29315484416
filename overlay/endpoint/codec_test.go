package endpoint

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var (
	drawText = rapid.OneOf(rapid.String(), rapid.StringMatching(`[0-9a-f]{64}`), rapid.StringMatching(`[0-9a-f]{3}`), rapid.SampledFrom([]string{"", "02:42:0a:00:01:05", "02:42:0A:00:01:05", "0242.0a00.0105"}))
	drawAddr = rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("10.0.1.5"), netip.MustParseAddr("fd00::5"), netip.MustParseAddr("::ffff:10.0.1.5")})
	drawPort = rapid.Custom(func(t *rapid.T) Port {
		return Port{Name: drawText.Draw(t, "name"), Protocol: rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "protocol"), Port: rapid.Uint16().Draw(t, "port")}
	})
	drawAttachment = rapid.Custom(func(t *rapid.T) Attachment {
		return Attachment{
			NetworkID: drawText.Draw(t, "network"), MAC: drawText.Draw(t, "mac"),
			Addrs: nilIfEmpty(rapid.SliceOfN(drawAddr, 0, 3).Draw(t, "addrs")), Aliases: nilIfEmpty(rapid.SliceOfN(drawText, 0, 3).Draw(t, "aliases")),
		}
	})
	drawRecord = rapid.Custom(func(t *rapid.T) Record {
		r := Record{
			Owner: rapid.SampledFrom([]string{"n1", "n2"}).Draw(t, "owner"), Key: drawText.Draw(t, "key"),
			Epoch: rapid.Uint64Range(1, 3).Draw(t, "epoch"), Seq: rapid.Uint64Min(1).Draw(t, "seq"), Deleted: rapid.Bool().Draw(t, "deleted"),
		}
		if !r.Deleted {
			r.Value = Value{
				State: rapid.SampledFrom([]State{Ready, Draining, Starting, 99}).Draw(t, "state"), ServiceID: drawText.Draw(t, "service"), ServiceName: drawText.Draw(t, "servicename"),
				TaskName: drawText.Draw(t, "task"), Slot: rapid.Int().Draw(t, "slot"), ContainerID: drawText.Draw(t, "container"), Hostname: drawText.Draw(t, "hostname"),
				VTEP: drawAddr.Draw(t, "vtep"), Ports: nilIfEmpty(rapid.SliceOfN(drawPort, 0, 3).Draw(t, "ports")), Attachments: nilIfEmpty(rapid.SliceOfN(drawAttachment, 0, 3).Draw(t, "attachments")),
				HidesClients: rapid.Bool().Draw(t, "hides"), Later: nilIfEmpty(rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "later")),
			}
		}
		return r
	})
)

func nilIfEmpty[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return s
}

func TestRecordsSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := nilIfEmpty(rapid.SliceOf(drawRecord).Draw(t, "records"))
		got, err := DecodeRecords(AppendRecords(nil, want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v (%v), want %+v", got, err, want)
		}
	})
}

// TestEveryFieldIsOnTheWire: a field that is new is not forgotten.
func TestEveryFieldIsOnTheWire(t *testing.T) {
	v := reflect.New(reflect.TypeFor[Value]()).Elem()
	fill(v)
	want := []Record{{Owner: "n1", Key: "k", Epoch: 1, Seq: 1, Value: v.Interface().(Value)}}
	if got, err := DecodeRecords(AppendRecords(nil, want)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v (%v), want %+v", got, err, want)
	}
}

// fill gives every field a value that is not its zero.
func fill(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.MustParseAddr("10.0.1.5")))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case v.Kind() == reflect.String:
		v.SetString("abc")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(1)
	case v.CanUint():
		v.SetUint(1)
	default:
		panic("no value for a " + v.Type().String())
	}
}

// TestALaterVersionIsHandedOn: what a later version says beyond what this one
// understands reaches a third node as it was, and no table differs for it.
func TestALaterVersionIsHandedOn(t *testing.T) {
	later, old, third := New("a", 1), New("b", 1), New("c", 1)
	v := val("web", "n1")
	v.State, v.Later = 7, []byte("colour: blue")
	later.Set("t", v)
	old.Merge(later.View().All())
	got := old.View().Owner("a")
	if len(got) != 1 || got[0].Value.State.Counts() || got[0].Value.ServiceName != v.ServiceName {
		t.Fatalf("the older version has %+v", got)
	}
	sets, _ := old.SetsFor(old.Lacking(third.Digest(), true), 1<<20)
	for _, s := range sets {
		s, _, err := DecodeSet(AppendSet(nil, s))
		if err != nil {
			t.Fatal(err)
		}
		third.MergeSets([]Set{s})
	}
	if got := third.View().Owner("a"); !reflect.DeepEqual(got, later.View().Owner("a")) {
		t.Errorf("the third node has %+v", got)
	}
	for _, e := range third.Digest() {
		if e.Owner == "a" && !slices.Contains(later.Digest(), e) {
			t.Errorf("the third node's digest of it differs: %+v", e)
		}
	}
}

func TestSetsAndDigestsSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(3)
		t.Repeat(w.actions(false))
		for _, tab := range w.tables {
			d := tab.Digest()
			gotD, rest, err := DecodeDigest(AppendDigest(nil, d))
			if err != nil || len(rest) != 0 || !reflect.DeepEqual(gotD, d) {
				t.Fatalf("digest %+v became %+v (%v)", d, gotD, err)
			}
			wants := tab.Lacking(nil, true)
			gotW, rest, err := DecodeWants(AppendWants(nil, wants))
			if err != nil || len(rest) != 0 || !reflect.DeepEqual(gotW, wants) {
				t.Fatalf("wants %+v became %+v (%v)", wants, gotW, err)
			}
			sets, _ := tab.SetsFor(wants, 1<<20)
			for _, s := range sets {
				got, rest, err := DecodeSet(AppendSet(nil, s))
				if err != nil || len(rest) != 0 || !reflect.DeepEqual(got, s) {
					t.Fatalf("set %+v became %+v (%v)", s, got, err)
				}
			}
		}
	})
}

func TestARecordIsCompact(t *testing.T) {
	r := Record{Owner: "abcdefghijklmnopqrstuvwxy", Key: "zyxwvutsrqponmlkjihgfedcb", Epoch: 3, Seq: 1000, Value: Value{
		ServiceID: "abcdefghijklmnopqrstuvwxy", ServiceName: "web", TaskName: "web.3", Slot: 3, Hostname: "h2",
		ContainerID: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", VTEP: netip.MustParseAddr("10.77.0.1"),
		Ports: []Port{{Protocol: "tcp", Port: 80}},
		Attachments: []Attachment{
			{NetworkID: "abcdefghijklmnopqrstuvwxy", MAC: "02:42:0a:00:01:05", Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.5")}},
			{NetworkID: "bbcdefghijklmnopqrstuvwxy", MAC: "02:42:0a:00:00:05", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.5")}},
		},
	}}
	if n := len(AppendRecords(nil, []Record{r})); n > 250 {
		t.Errorf("an ordinary record takes %d bytes", n)
	}
}

func FuzzDecoders(f *testing.F) {
	tab := New("a", 1)
	r := tab.Set("t", val("web", "n1"))
	sets, _ := tab.SetsFor(tab.Lacking(nil, true), 1<<20)
	f.Add(AppendRecords(nil, []Record{r, {Owner: "a", Key: "x", Epoch: 1, Seq: 2, Deleted: true}}))
	f.Add(AppendSet(nil, sets[0]))
	f.Add(AppendDigest(nil, tab.Digest()))
	f.Add(AppendWants(nil, tab.Lacking(nil, true)))
	f.Fuzz(func(t *testing.T, b []byte) {
		reader := New("reader", 1)
		if records, err := DecodeRecords(b); err == nil {
			again, err := DecodeRecords(AppendRecords(nil, records))
			if err != nil || !bytes.Equal(AppendRecords(nil, again), AppendRecords(nil, records)) {
				t.Fatalf("records change when encoded again: %v", err)
			}
			reader.Merge(records)
		} else if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("unknown error %v", err)
		}
		if s, _, err := DecodeSet(b); err == nil {
			if _, _, err := DecodeSet(AppendSet(nil, s)); err != nil {
				t.Fatal(err)
			}
			reader.MergeSets([]Set{s})
		}
		if d, _, err := DecodeDigest(b); err == nil {
			reader.Lacking(d, true)
			reader.SetsFor(reader.Diff(d), 1<<20)
		}
		if w, _, err := DecodeWants(b); err == nil {
			reader.SetsFor(w, 1<<20)
		}
		reader.View().All()
		reader.Behind()
	})
}
