// Package raftnode is one manager's membership in the Raft group: it owns the
// log and the snapshots on disk, elections, the list of managers and who of them
// answers, and carries proposals into the log.
//
// It opens no socket itself (a raft.StreamLayer is handed in) and knows nothing
// of what the operations mean: control/fsm and control/store do.
package raftnode
