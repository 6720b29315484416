package raftnode

import (
	"strconv"

	"github.com/hashicorp/raft"
)

// Stats are numbers about a member, for people.
type Stats struct {
	Leader bool
	// Term is the member's; Last is the newest entry of its log, Committed what it
	// knows a majority to have, Applied what its store holds.
	Term, Last, Committed, Applied uint64
	// Voters is how many managers decide.
	Voters int
}

// Stats returns the present numbers.
func (n *Node) Stats() Stats {
	s := n.raft.Stats()
	number := func(key string) uint64 {
		v, _ := strconv.ParseUint(s[key], 10, 64) // decimal by construction
		return v
	}
	out := Stats{
		Leader: n.IsLeader(), Term: number("term"), Last: number("last_log_index"),
		Committed: number("commit_index"), Applied: number("applied_index"),
	}
	for _, server := range n.servers() {
		if server.Suffrage == raft.Voter {
			out.Voters++
		}
	}
	return out
}
