// Package crash has the test that kills a node's network daemon between any two of
// its changes of the kernel, on a real kernel, and asks the next one to put
// everything right. It has no code of its own.
package crash
