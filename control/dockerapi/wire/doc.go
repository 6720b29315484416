// Package wire owns what every route of the Docker Engine API shares, whoever
// answers it: routing with and without a version prefix, version negotiation,
// what to say where Docker has a route and Shoal none, the shape of errors,
// filters, bounded JSON bodies, log frames, JSON streams and hijacked connections.
//
// It knows no state: it never reads the cluster, a container or a network, and
// it never decides what a route answers.
package wire
