// Package api owns the nouns of the control plane and the node: cluster, node,
// service, task, network. Where Docker has a type for a thing, the noun is that
// type (github.com/moby/moby/api/types/swarm) with the few fields Docker has no
// word for beside it. The package also owns the order of task states, the error
// kinds, the operations that a Raft entry carries, and validation.
//
// It never imports another room, and overlay, dataplane and dns never import it.
package api
