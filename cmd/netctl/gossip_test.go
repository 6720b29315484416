package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestGossipKeys: a change of the keys says for whom it waits, as far as the node knows.
func TestGossipKeys(t *testing.T) {
	since := time.Date(2026, 11, 22, 2, 10, 4, 0, time.UTC)
	when := since.Local().Format("2006-01-02 15:04:05")
	for keys, want := range map[string]string{
		`{}`: "the leader has not begun to count their changes",
		`{"Phase":"settled","Step":7,"Made":7,"Since":%q}`:                       "settled since " + when,
		`{"Phase":"install","Step":8,"Made":8,"Since":%q,"Waiting":["h2","h3"]}`: "a change goes on (step 8, install since " + when + "): waits for h2, h3",
		`{"Phase":"use","Step":9,"Made":9,"Since":%q,"Waiting":[]}`:              "a change goes on (step 9, use since " + when + "): waits for no node",
		`{"Phase":"use","Step":9,"Made":8,"Since":%q,"Waiting":null}`:            "waits for this node, and managers know for whom else",
		`{"Phase":"use","Step":9,"Made":9,"Since":%q,"Waiting":null}`:            "this node has made the step, managers know for whom it waits",
	} {
		if strings.Contains(keys, "%q") {
			keys = fmt.Sprintf(keys, since.Format(time.RFC3339))
		}
		d := &daemon{status: http.StatusOK, answer: `{"DigestSum":1,"Keys":` + keys + `}`}
		out, err := d.netctl(t, "gossip")
		last := out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]
		if err != nil || !strings.HasPrefix(last, "keys: ") || !strings.HasSuffix(strings.TrimSpace(last), want) {
			t.Errorf("%s: %v, %q, want %q", keys, err, last, want)
		}
	}
}
