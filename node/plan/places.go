package plan

import (
	"cmp"
	"net/netip"
	"slices"

	"shoal/control/api"
	"shoal/overlay/endpoint"
)

// place is a service on a network.
type place struct{ serviceID, networkID string }

// spot is where one record sits on one network. Rests says that it gets nothing
// new: it drains, or its node is silent while others can do the work.
type spot struct {
	*endpoint.Record
	at     endpoint.Attachment
	silent bool
	rests  bool
}

// index sorts the records by network and by service, so that no question about
// one of them looks at all.
func (c *compiler) index(records []endpoint.Record) {
	sorted := make([]*endpoint.Record, len(records))
	for i := range records {
		sorted[i] = &records[i]
	}
	slices.SortFunc(sorted, compareRecords)
	holders := c.holders(sorted)
	for i, r := range sorted {
		if c.stranger(r.Owner) {
			continue
		}
		for _, a := range r.Value.Attachments {
			held := slices.ContainsFunc(a.Addrs, func(addr netip.Addr) bool { return holders[seat{a.NetworkID, addr}] == i })
			if !held {
				continue
			}
			s := spot{Record: r, at: a, silent: c.in.Silent[r.Owner] && r.Owner != c.in.Self.ID}
			if r.Owner != c.in.Self.ID {
				c.remote[a.NetworkID] = append(c.remote[a.NetworkID], s)
			}
			if !c.dead[r.Owner] {
				c.list(s)
			}
		}
	}
	for _, spots := range c.spots {
		rest(spots)
	}
}

// list notes a spot under the service, or the container, that it belongs to.
func (c *compiler) list(s spot) {
	p := place{s.Value.ServiceID, s.at.NetworkID}
	switch counts := s.Value.State.Counts(); {
	case s.Value.ServiceID != "" && counts:
		c.spots[p] = append(c.spots[p], s)
	case s.Value.ServiceID != "":
		s.rests = true
		c.starting[p] = append(c.starting[p], s)
	case s.Value.TaskName != "" && counts:
		c.alone[p.networkID] = append(c.alone[p.networkID], s)
	}
}

// stranger says that the managers know no such node: they removed it, and it goes
// on telling of its tasks. Before they have told of any node, nobody is one.
func (c *compiler) stranger(owner string) bool {
	return len(c.nodes) > 0 && c.nodes[owner] == nil && owner != c.in.Self.ID
}

// seat is an address on a network.
type seat struct {
	networkID string
	addr      netip.Addr
}

// holders says which record an address belongs to. For a moment two can claim
// it: the one of a task that went, and the one of a task that was given its
// address since. No kernel table takes both.
func (c *compiler) holders(records []*endpoint.Record) map[seat]int {
	holders := make(map[seat]int, len(records))
	for i, r := range records {
		for _, a := range r.Value.Attachments {
			for _, addr := range a.Addrs {
				at := seat{a.NetworkID, addr}
				if other, taken := holders[at]; !taken || c.trust(r) > c.trust(records[other]) {
					holders[at] = i
				}
			}
		}
	}
	return holders
}

// trust says how likely a record is the one that an address belongs to now.
func (c *compiler) trust(r *endpoint.Record) int {
	switch {
	case c.stranger(r.Owner):
		return -1
	case r.Owner == c.in.Self.ID && r.Value.State != endpoint.Draining:
		return 4
	case c.dead[r.Owner]:
		return 0
	case c.in.Silent[r.Owner] && r.Owner != c.in.Self.ID:
		return 1
	case r.Value.State == endpoint.Draining:
		return 2
	}
	return 3
}

// rest decides which of a service's spots on a network get nothing new. Those on
// a node that gossip misses rest, unless nothing else is left: silence alone
// never takes a service's last task. What the managers gave up is not listed.
func rest(spots []spot) {
	usable := func(s spot) bool { return !s.silent && s.Value.State != endpoint.Draining }
	others := slices.ContainsFunc(spots, usable)
	for i := range spots {
		s := &spots[i]
		s.rests = s.Value.State == endpoint.Draining || s.silent && others
	}
}

func compareRecords(a, b *endpoint.Record) int {
	return cmp.Or(
		cmp.Compare(a.Value.ServiceName, b.Value.ServiceName),
		cmp.Compare(a.Value.Slot, b.Value.Slot),
		cmp.Compare(a.Owner, b.Owner),
		cmp.Compare(a.Key, b.Key),
	)
}

// indexServices notes which services stand on which network: by the networks
// their tasks attach to for names, by their virtual IPs for balancing.
func (c *compiler) indexServices() {
	named := map[string]string{} // network ids by name
	for id, n := range c.networks {
		if !n.Removed {
			named[n.Spec.Name] = id
		}
	}
	for _, s := range c.in.Services {
		listed := map[string]bool{}
		for _, t := range s.Spec.TaskTemplate.Networks {
			id := t.Target
			if c.networks[id] == nil {
				id = named[t.Target]
			}
			if id != "" && !listed[id] {
				listed[id] = true
				c.attached[id] = append(c.attached[id], attached{s, t.Aliases})
			}
		}
		for i, v := range s.Endpoint.VirtualIPs {
			if v.Addr.IsValid() {
				c.fronts[v.NetworkID] = append(c.fronts[v.NetworkID], front{s, s.Endpoint.VirtualIPs[i].Addr.Addr()})
			}
		}
	}
}

// sortServices orders services by name.
func sortServices(in []*api.Service) []*api.Service {
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b *api.Service) int {
		return cmp.Or(cmp.Compare(a.Spec.Name, b.Spec.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}
