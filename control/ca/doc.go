// Package ca owns identity: the cluster's root certificate, the certificates of
// its nodes, the join tokens that pin the root, the TLS configurations that every
// connection between nodes uses, and the file in which a node keeps its own key
// and certificate.
//
// It never opens a socket, never reads the cluster's state, and never decides who
// may join: callers bring the root, the wanted identity and the time. Keys and
// tokens never reach a log: every type that holds one prints itself redacted.
package ca
