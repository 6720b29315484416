package probe

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestMessageOnTheWire(t *testing.T) {
	for _, size := range []int{0, headerBytes, 1422} {
		q := question(1<<63|42, size)
		if nonce, isAnswer, ok := parse(q); nonce != 42 || isAnswer || !ok || len(q) != max(size, headerBytes) {
			t.Errorf("question of %d bytes reads back as %d %t %t, %d bytes", size, nonce, isAnswer, ok, len(q))
		}
	}
	if nonce, isAnswer, ok := parse(answer(42)); nonce != 42 || !isAnswer || !ok {
		t.Errorf("answer reads back as %d %t %t", nonce, isAnswer, ok)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(question(1, 64))
	f.Add([]byte("shoal"))
	f.Fuzz(func(t *testing.T, b []byte) {
		nonce, isAnswer, ok := parse(b)
		if !ok {
			return
		}
		again := question(nonce, len(b))
		if isAnswer {
			again = message(nonce|answerBit, len(b))
		}
		if !bytes.Equal(again[:headerBytes], b[:headerBytes]) {
			t.Errorf("%x reads back as %x", b[:headerBytes], again[:headerBytes])
		}
	})
}

func TestWords(t *testing.T) {
	target := Targets{MTU: 1450, Overhead: 50, Port: 4789}
	for _, tt := range []struct {
		path     Path
		software bool
		want     string
	}{
		{Path{Answers: true, Sums: true, MTU: 1450}, false, ""},
		{Path{}, false, "let UDP port 4789 pass"},
		{Path{Answers: true, MTU: 1450}, false, "left to the network card"},
		{Path{Answers: true, MTU: 1450}, true, "something on the way changes them"},
		{Path{Answers: true, Sums: true, MTU: 1350}, false, "more than 1400 bytes"},
	} {
		target.SoftwareChecksums = tt.software
		got := target.trouble(tt.path)
		if !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") || (got == "") != target.fine(tt.path) {
			t.Errorf("%+v: %q, want %q", tt.path, got, tt.want)
		}
	}
	target.SoftwareChecksums = true
	var ways []Way
	for range messagesMax + 3 {
		ways = append(ways, Way{Peer: Peer{Name: "n", VTEP: netip.MustParseAddr("192.0.2.1")}, Trouble: "gone"}, Way{})
	}
	got := target.messages(ways)
	if len(got) != messagesMax+2 || !strings.Contains(got[messagesMax], "3 more nodes") || !strings.Contains(got[messagesMax+1], "network card") {
		t.Errorf("%d messages: %q", len(got), got)
	}
}

// TestTroubleCountsTwice: a peer that has only just come is not reported.
func TestTroubleCountsTwice(t *testing.T) {
	target := Targets{MTU: 1450}
	w, began := &way{}, time.Now()
	w.note(target, Path{})
	if w.known || w.due.After(began.Add(2*doubtFor)) {
		t.Errorf("after one bad test: %+v", w)
	}
	w.note(target, Path{})
	if !w.known || w.due.Before(began.Add(badFor)) {
		t.Errorf("after two: %+v", w)
	}
	w.note(target, Path{Answers: true, Sums: true, MTU: 1450})
	if !w.known || w.bad != 0 || !w.path.Sums || w.due.Before(began.Add(goodFor/2)) {
		t.Errorf("after a good one: %+v", w)
	}
}
