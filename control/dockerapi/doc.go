// Package dockerapi owns the cluster half of the Docker Engine API: swarm,
// nodes, services, tasks and networks of the cluster, and the events about
// them. Reads are answered from the local copy of the cluster's state; a write
// is decoded, validated, given its ids and proposed as one transaction.
//
// It never plans (who runs where, which address), never touches a kernel or a
// container, and never keeps state of its own.
package dockerapi
