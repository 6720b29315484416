// Package gossip tells the nodes of a cluster of one another and carries the
// endpoint table between them. It owns membership (Serf over memberlist), the
// spreading of deltas as Serf events, the anti-entropy that repairs what events
// lost, and the gossip keys.
//
// Three things travel. Packets on UDP are memberlist's, sealed by it with the
// primary key. Streams on TCP, the same port, are TLS with both sides verified;
// ALPN tells memberlist's own (ProtocolGossip) from ours (ProtocolPull). On ours
// two tables compare digests and give each other what the other lacks, and a node
// asks how far another one has applied what it knows.
//
// Events are only the fast way: they may be lost, repeated, reordered or dropped by
// a full queue. Whatever an event fails to bring is noticed as a gap in an owner's
// numbers, or by the digests that are compared whenever a member appears, and every
// SyncInterval with one member at random.
//
// A certificate says that a node was admitted once. Whether it still is a node says
// Config.Admit, which is asked again and again: one that is refused is no member, and
// no stream of its is served. A refusal of a node that is only not known here yet
// costs it a moment: it is joined as soon as Admit has nothing against it.
//
// The package never touches the kernel's tables and never decides what an endpoint
// is; it never writes a record.
package gossip
