package api

import "slices"

// Capabilities is what a node found out that its kernel can do, and what its
// self-tests found wrong. The managers refuse what a node could not carry out by
// it. A node that did not say anything yet (Known is false) is given the benefit
// of the doubt.
type Capabilities struct {
	// Kernel is the kernel's release, as uname prints it.
	Kernel string `json:",omitempty"`
	// Balancer is the name of the balancer in use, Algorithms what it can do, in
	// the words of the label shoal.lb.algorithm.
	Balancer   string   `json:",omitempty"`
	Algorithms []string `json:",omitempty"`
	// Encryption lists the ways in which the node can encrypt overlay networks,
	// the best first.
	Encryption []string `json:",omitempty"`
	// IPv6 says that the kernel has IPv6.
	IPv6 bool `json:",omitempty"`
	// Missing says why something is not there, by what it is: "algorithm lc",
	// "encryption", "ipv6".
	Missing map[string]string `json:",omitempty"`
	// Messages are what the node's self-tests found, for people, sorted.
	Messages []string `json:",omitempty"`
}

// MissingAlgorithm is the key of an algorithm in Missing.
func MissingAlgorithm(name string) string { return "algorithm " + name }

// Known says whether the node has told of its balancer.
func (c Capabilities) Known() bool { return c.Balancer != "" }

// Balances says whether the node's balancer knows the algorithm, and why not. A
// node that did not tell yet balances everything.
func (c Capabilities) Balances(algorithm string) (can bool, why string) {
	if !c.Known() || slices.Contains(c.Algorithms, algorithm) {
		return true, ""
	}
	return false, c.Missing[MissingAlgorithm(algorithm)]
}
