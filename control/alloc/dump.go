package alloc

import (
	"fmt"
	"sort"
)

// Dump lists everything that is given, one "what owner" per line, sorted: two
// allocators that know the same dump the same.
func (a *Allocator) Dump() []string {
	lines := []string{}
	for id, n := range a.networks {
		for addr, count := range n.used {
			lines = append(lines, fmt.Sprintf("address %s in %s taken %d", addr, id, count))
		}
		for _, p := range n.pools {
			lines = append(lines, fmt.Sprintf("subnet %s of %s", p.subnet, id))
		}
	}
	for vni, id := range a.vnis {
		lines = append(lines, fmt.Sprintf("vni %d of %s", vni, id))
	}
	for p, id := range a.ports {
		lines = append(lines, fmt.Sprintf("port %d/%s of %s", p.number, p.protocol, id))
	}
	sort.Strings(lines)
	return lines
}
