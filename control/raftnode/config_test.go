package raftnode

import (
	"testing"
	"time"
)

// TestCommitNotice: followers hear of commits soon, and on slow machines as much
// later as elections take longer.
func TestCommitNotice(t *testing.T) {
	for election, want := range map[time.Duration]time.Duration{
		20 * time.Millisecond: 5 * time.Millisecond, defaultElection: commitNotice, 10 * defaultElection: 10 * commitNotice,
	} {
		if got := (Config{Election: election}).raft(hclogger{}).CommitTimeout; got != want {
			t.Errorf("election timeout %s: commits are told after %s, not %s", election, got, want)
		}
	}
}
