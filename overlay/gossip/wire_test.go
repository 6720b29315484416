package gossip

import (
	"bytes"
	"encoding/binary"
	"io"
	"reflect"
	"testing"
	"time"

	"shoal/overlay/endpoint"
)

func sampleSets() ([]endpoint.Set, endpoint.Digest) {
	tab := endpoint.New("a", 3)
	tab.Set("t1", endpoint.Value{ServiceName: "web"})
	tab.Set("t2", endpoint.Value{ServiceName: "db"})
	tab.Remove("t1")
	sets, _ := tab.SetsFor(tab.Lacking(nil, true), 1<<20)
	return sets, tab.Digest()
}

func TestMessagesSurviveTheWire(t *testing.T) {
	sets, digest := sampleSets()
	for _, whole := range []bool{false, true} {
		want := digestRequest{Whole: whole, Digest: digest}
		if got, err := decodeDigestRequest(want.encode()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("digest request %+v became %+v (%v)", want, got, err)
		}
		answer := setsAnswer{Sets: sets, More: whole, Wants: []endpoint.Want{{Owner: "b", Epoch: 1, Since: 9}}}
		if got, err := decodeSetsAnswer(answer.encode()); err != nil || !reflect.DeepEqual(got, answer) {
			t.Errorf("sets %+v became %+v (%v)", answer, got, err)
		}
	}
	applied := appliedRequest{Owner: "n1", At: endpoint.Position{Epoch: 4, Seq: 7}, Wait: 1500 * time.Millisecond}
	if got, err := decodeAppliedRequest(applied.encode()); err != nil || got != applied {
		t.Errorf("applied request %+v became %+v (%v)", applied, got, err)
	}
	if owner, at, err := decodeHint(encodeHint("n1", applied.At)); err != nil || owner != "n1" || at != applied.At {
		t.Errorf("hint became %q %v (%v)", owner, at, err)
	}
}

func TestFramesAreBounded(t *testing.T) {
	var buf bytes.Buffer
	must(t, writeFrame(&buf, kindSum, []byte("12345678")))
	whole := bytes.Clone(buf.Bytes())
	if kind, body, err := readFrame(&buf); err != nil || kind != kindSum || string(body) != "12345678" {
		t.Fatalf("frame became %d %q (%v)", kind, body, err)
	}
	for name, b := range map[string][]byte{
		"empty": {}, "cut head": whole[:3], "cut body": whole[:9],
		"no kind": {0, 0, 0, 0, 0}, "too long": binary.BigEndian.AppendUint32(nil, frameBytesMax+1),
	} {
		if _, _, err := readFrame(bytes.NewReader(append(b, make([]byte, len(b)/99)...))); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if err := writeFrame(io.Discard, kindPush, make([]byte, frameBytesMax)); err == nil {
		t.Error("a frame beyond the bound was written")
	}
}

func FuzzWire(f *testing.F) {
	sets, digest := sampleSets()
	f.Add(digestRequest{Whole: true, Digest: digest}.encode())
	f.Add(setsAnswer{Sets: sets, Wants: []endpoint.Want{{Owner: "b"}}}.encode())
	f.Add(appliedRequest{Owner: "n", At: endpoint.Position{Epoch: 1, Seq: 2}, Wait: time.Second}.encode())
	f.Add(encodeHint("n", endpoint.Position{Epoch: 1, Seq: 2}))
	f.Add([]byte{0, 0, 0, 2, kindSum, 1})
	f.Add(progress{at: endpoint.Position{Epoch: 1, Seq: 2}, held: map[string]endpoint.Position{"net1": {Epoch: 1, Seq: 1}, Own: {}}}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeDigestRequest(b); err == nil {
			if again, err := decodeDigestRequest(r.encode()); err != nil || !reflect.DeepEqual(again, r) {
				t.Fatalf("%+v became %+v (%v)", r, again, err)
			}
		}
		if a, err := decodeSetsAnswer(b); err == nil {
			if _, err := decodeSetsAnswer(a.encode()); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := decodeAppliedRequest(b); err == nil {
			if again, err := decodeAppliedRequest(r.encode()); err != nil || again != r {
				t.Fatalf("%+v became %+v (%v)", r, again, err)
			}
		}
		if p, err := decodeProgress(b); err == nil {
			if again, err := decodeProgress(p.encode()); err != nil || !reflect.DeepEqual(again, p) {
				t.Fatalf("%+v became %+v (%v)", p, again, err)
			}
		}
		if owner, at, err := decodeHint(b); err == nil && owner == "" {
			t.Fatalf("hint without owner at %v", at)
		}
		if kind, body, err := readFrame(bytes.NewReader(b)); err == nil && len(body) > len(b) {
			t.Fatalf("frame %d of %d bytes from %d", kind, len(body), len(b))
		}
	})
}

func TestBatchesFitIntoEvents(t *testing.T) {
	tab := endpoint.New("a", 1)
	var records []endpoint.Record
	for i := range 100 {
		v := endpoint.Value{ServiceName: "service"}
		if i == 50 {
			v.Hostname = string(make([]byte, eventBytesMax)) // alone too large
		}
		records = append(records, tab.Set(string(rune('0'+i)), v))
	}
	reader, seen := endpoint.New("b", 1), 0
	for len(records) > 0 {
		payload, n := nextBatch(records)
		if len(payload) > eventBytesMax || n < 1 || payload == nil && n != 1 {
			t.Fatalf("batch of %d records in %d bytes", n, len(payload))
		}
		got, err := endpoint.DecodeRecords(payload)
		must(t, err)
		seen += len(reader.Merge(got))
		records = records[n:]
	}
	if seen != 99 || len(reader.Behind()) != 1 {
		t.Errorf("%d of 99 records arrived, behind %v", seen, reader.Behind())
	}
}
