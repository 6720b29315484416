// Package sim runs many nodes in one process: real managers with Raft, mutual
// TLS, dispatch and planners, real gossip, real agents and fabrics, each on a
// loopback address of its own. Only the kernel and the runtime of each node are
// in memory. Faults are drawn from a seed: processes die, hosts lose power, the
// underlay splits, programs exit. Checkers watch the state all the time, and
// compare every node with every other whenever the cluster has come to rest.
//
// The seed replays the choice of faults, not the scheduler's: what fails with a
// seed fails again with some probability, not surely.
package sim
