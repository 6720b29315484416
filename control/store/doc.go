// Package store holds the cluster's state in indexed, immutable in-memory tables
// (go-memdb): one table per api.Kind. It owns the meaning of every api.Op, the
// invariants that no committed state may break (one owner per name, published
// port, address and VXLAN identifier; nothing refers to a network or service
// that is gone), snapshots, and the waking of whoever watches.
//
// It never reads a clock, draws a random number, or knows of Raft or the
// network: time and index come in with each Commit, so that managers that
// commit the same operations hold byte-equal state. It never changes an object
// it has handed out, and nobody else may either.
package store
