package schedule

import (
	"fmt"
	"sort"
)

// Dump lists every node's load, sorted: two schedulers that know the same dump
// the same.
func (s *Scheduler) Dump() []string {
	lines := []string{}
	for id, n := range s.nodes {
		lines = append(lines, fmt.Sprintf("node %s exists %t: %d tasks, by service %v, reserved %d %d, ports %v, failures %v",
			id, n.Node != nil, n.total, n.services, n.reserved.NanoCPUs, n.reserved.MemoryBytes, n.ports, n.failures))
	}
	for id := range s.waiting {
		lines = append(lines, "waiting "+id)
	}
	sort.Strings(lines)
	return lines
}
