// Package probe tests the data path between nodes: whether tunnelled packets
// arrive at all, whether they arrive when their checksum is left to the network
// card, and how large they may be. It sends ordinary datagrams over the probe
// network, a VXLAN like any other that no task is on, so that they take the very
// way that tasks' packets take, and it answers those of the others.
//
// It owns the sockets of the test and the words for what it finds. It changes
// nothing in the kernel and knows nothing of the cluster: whom to test, and what
// to do about what was found, is its caller's.
//
// Cost: a healthy way is tested when the peer is new and then every ten minutes or
// so, with three questions of one packet each.
package probe
