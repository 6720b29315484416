package zone

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
)

// Change is what became different on one network.
type Change struct {
	// ID is the network's, Name its name now.
	ID, Name string
	// Gone says that the node has left the network; nothing else counts then.
	Gone bool `json:",omitempty"`
	// Whole says that Set is all there is, whatever was there.
	Whole bool `json:",omitempty"`
	// Set are services that are new or different, Remove the names of those that
	// are gone.
	Set    []Service `json:",omitempty"`
	Remove []string  `json:",omitempty"`
}

// Diff says what makes the old model the new one. Networks of one id, and
// services of one name in a network, are the same thing; of several, the last
// one in a list counts. Build(old).With(Diff(old, new)) answers as Build(new).
func Diff(old, now Model) []Change {
	before, after := networks(old), networks(now)
	var out []Change
	for _, id := range slices.Sorted(maps.Keys(after)) {
		n := after[id]
		b, known := before[id]
		c := Change{ID: id, Name: n.Name, Whole: !known}
		c.Set, c.Remove = diffServices(b.Services, n.Services)
		if !known || b.Name != n.Name || len(c.Set)+len(c.Remove) > 0 {
			out = append(out, c)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if _, still := after[id]; !still {
			out = append(out, Change{ID: id, Gone: true})
		}
	}
	return out
}

func networks(m Model) map[string]Network {
	out := make(map[string]Network, len(m.Networks))
	for _, n := range m.Networks {
		out[n.ID] = n
	}
	return out
}

func byName(services []Service) map[string]Service {
	out := make(map[string]Service, len(services))
	for _, s := range services {
		out[s.Name] = s
	}
	return out
}

func diffServices(old, now []Service) (set []Service, remove []string) {
	if same(old, now) {
		return nil, nil
	}
	before, after := byName(old), byName(now)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if b, known := before[name]; !known || !reflect.DeepEqual(b, after[name]) {
			set = append(set, after[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, still := after[name]; !still {
			remove = append(remove, name)
		}
	}
	return set, remove
}

// same says that two lists are one list.
func same(a, b []Service) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// With returns the zone after the changes. Networks that did not change are
// shared with the old zone.
func (z *Zone) With(changes []Change) *Zone {
	next := &Zone{networks: maps.Clone(z.networks), names: z.names}
	for _, c := range changes {
		if c.Gone {
			next.drop(c.ID)
			continue
		}
		services := map[string]Service{}
		if x := next.networks[c.ID]; x != nil && !c.Whole {
			services = byName(x.services)
		}
		for _, name := range c.Remove {
			delete(services, name)
		}
		maps.Copy(services, byName(c.Set))
		next.put(build(Network{ID: c.ID, Name: c.Name, Services: slices.SortedFunc(maps.Values(services), compareServices)}))
	}
	return next
}

func compareServices(a, b Service) int { return cmp.Compare(a.Name, b.Name) }

// Model returns what the zone was made of, in the order of the names.
func (z *Zone) Model() Model {
	var m Model
	for _, id := range slices.Sorted(maps.Keys(z.networks)) {
		x := z.networks[id]
		m.Networks = append(m.Networks, Network{ID: id, Name: x.name, Services: slices.SortedFunc(slices.Values(x.services), compareServices)})
	}
	return m
}
