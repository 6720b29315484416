package endpoint

import (
	"maps"
	"slices"
	"strings"
)

// View is a table at one moment. It never changes; what it returns must not be
// changed either.
type View struct {
	version uint64
	ids     []string
	owners  map[string]*ownerView
	down    map[string]struct{}
}

// ownerView is one owner's part, shared by all views between two changes of it.
type ownerView struct {
	at        Position
	records   []Record // by key
	byNetwork map[string][]Record
	byService map[string][]Record
}

// View returns the table's present contents. Owners that did not change since the
// last view are shared with it.
func (t *Table) View() *View {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.view != nil {
		return t.view
	}
	v := &View{version: t.version, owners: make(map[string]*ownerView, len(t.owners)), down: t.down}
	for id, o := range t.owners {
		at := Position{o.epoch, o.done}
		if o.view == nil {
			shown := o.shown()
			if id == t.self {
				shown = t.withBefore(shown)
			}
			o.view = newOwnerView(shown)
		}
		if o.view.at != at {
			moved := *o.view
			moved.at = at
			o.view = &moved
		}
		v.owners[id] = o.view
	}
	v.ids = slices.Sorted(maps.Keys(v.owners))
	t.view = v
	return v
}

func newOwnerView(live map[string]entry) *ownerView {
	o := &ownerView{byNetwork: map[string][]Record{}, byService: map[string][]Record{}}
	for _, e := range live {
		o.records = append(o.records, e.rec)
	}
	slices.SortFunc(o.records, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
	for _, r := range o.records {
		if r.Value.ServiceID != "" {
			o.byService[r.Value.ServiceID] = append(o.byService[r.Value.ServiceID], r)
		}
		for i, a := range r.Value.Attachments {
			if attachedBefore(r.Value.Attachments[:i], a.NetworkID) {
				continue
			}
			o.byNetwork[a.NetworkID] = append(o.byNetwork[a.NetworkID], r)
		}
	}
	return o
}

func attachedBefore(earlier []Attachment, network string) bool {
	return slices.ContainsFunc(earlier, func(a Attachment) bool { return a.NetworkID == network })
}

// Version rises with every change of the table it was taken from.
func (v *View) Version() uint64 { return v.version }

// All returns the live records of all owners, by owner and key.
func (v *View) All() []Record {
	return v.collect(func(o *ownerView) []Record { return o.records }, true)
}

// ByNetwork returns the live records attached to a network, by owner and key.
func (v *View) ByNetwork(id string) []Record {
	return v.collect(func(o *ownerView) []Record { return o.byNetwork[id] }, true)
}

// ByService returns the live records of a service, by owner and key.
func (v *View) ByService(id string) []Record {
	return v.collect(func(o *ownerView) []Record { return o.byService[id] }, true)
}

// Usable is ByNetwork without the records of owners that are down.
func (v *View) Usable(networkID string) []Record {
	return v.collect(func(o *ownerView) []Record { return o.byNetwork[networkID] }, false)
}

func (v *View) collect(of func(*ownerView) []Record, downToo bool) []Record {
	var out []Record
	for _, id := range v.ids {
		if downToo || !v.Down(id) {
			out = append(out, of(v.owners[id])...)
		}
	}
	return out
}

// Owners are the ids of all owners, sorted.
func (v *View) Owners() []string { return v.ids }

// Owner returns the live records of one owner, by key.
func (v *View) Owner(id string) []Record {
	if o, ok := v.owners[id]; ok {
		return o.records
	}
	return nil
}

// Record finds one live record.
func (v *View) Record(owner, key string) (Record, bool) {
	records := v.Owner(owner)
	i, ok := slices.BinarySearchFunc(records, key, func(r Record, key string) int { return strings.Compare(r.Key, key) })
	if !ok {
		return Record{}, false
	}
	return records[i], true
}

// Node finds the record that an owner wrote about itself.
func (v *View) Node(owner string) (Record, bool) { return v.Record(owner, NodeKey) }

// Down reports whether the owner was not reachable.
func (v *View) Down(owner string) bool {
	_, ok := v.down[owner]
	return ok
}

// At is how far the owner's writes are accounted for in this view: it shows every
// write up to there. The zero Position stands for an unknown owner.
func (v *View) At(owner string) Position {
	if o, ok := v.owners[owner]; ok {
		return o.at
	}
	return Position{}
}
