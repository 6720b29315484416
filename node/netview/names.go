package netview

import (
	"cmp"
	"slices"

	"shoal/dns/zone"
)

// Names lists every name that tasks of this node can ask for.
func (s *Sources) Names() []Name {
	model := s.Fabric.Wish().Zone
	z := zone.Build(model)
	out := []Name{}
	for _, n := range model.Networks {
		for name, addrs := range z.Names(n.ID) {
			out = append(out, Name{Network: n.Name, Name: name, Addrs: addrs})
		}
	}
	slices.SortFunc(out, func(a, b Name) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Name, b.Name))
	})
	return out
}
