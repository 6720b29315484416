package raftnode

import (
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// A follower cuts off the end of its log when a new leader has another one. What
// is left must be readable after a restart.
func TestLogCutShortIsReadableAfterARestart(t *testing.T) {
	dir := t.TempDir()
	log, err := wal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var entries []*raft.Log
	for index := range uint64(10) {
		entries = append(entries, &raft.Log{Index: index + 1, Term: 1, Data: []byte("entry")})
	}
	if err := log.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	if err := log.DeleteRange(6, 10); err != nil {
		t.Fatal(err)
	}
	if err := log.StoreLog(&raft.Log{Index: 6, Term: 2, Data: []byte("other")}); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if log, err = wal.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for index := uint64(1); index <= 6; index++ {
		var entry raft.Log
		if err := log.GetLog(index, &entry); err != nil || entry.Index != index {
			t.Errorf("entry %d: %+v, %v", index, entry, err)
		}
	}
}
