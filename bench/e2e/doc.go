// Package e2e tests the whole house at work: real daemons on a lab of hosts, real
// containers, the kernel's own balancer, and bad days of every kind. It speaks to
// the daemons over the Docker API, reads the network views that netctl prints, and
// asks like any client: over TCP, UDP and DNS. It never looks inside a daemon.
package e2e
