// Package conformance drives a lab of three hosts with the stock docker CLI, as
// people do: scripts in testdata say what they type and what they then read. It
// holds no client of its own and looks at nothing but outputs and exit codes.
package conformance
