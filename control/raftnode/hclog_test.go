package raftnode

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestWarningsAreNotRepeated(t *testing.T) {
	var out bytes.Buffer
	l := hclogger{to: slog.New(slog.NewTextHandler(&out, nil)), calm: &calm{said: map[string]time.Time{}}}
	for range 5 {
		l.Error("failed to heartbeat to", "peer", "h2", "backoff time", time.Now())
		l.Error("failed to heartbeat to", "peer", "h3")
		l.Info("entering follower state")
	}
	for text, want := range map[string]int{"peer=h2": 1, "peer=h3": 1, "follower": 5} {
		if got := strings.Count(out.String(), text); got != want {
			t.Errorf("%q stands %d times in the log, want %d", text, got, want)
		}
	}
}

func TestCalmForgets(t *testing.T) {
	c, now := &calm{said: map[string]time.Time{}}, time.Unix(0, 0)
	if !c.first("away", nil, now) || c.first("away", nil, now.Add(time.Second)) || !c.first("away", nil, now.Add(calmFor)) {
		t.Error("a repetition is kept back for the wrong time")
	}
	for i := range 10 * calmMost {
		c.first("away", []any{"peer", i}, now)
	}
	if len(c.said) > calmMost {
		t.Errorf("%d warnings are remembered", len(c.said))
	}
}
