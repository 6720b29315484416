package alloc

import "shoal/control/api"

// SetRetired tells of something that its owner gave up and that is not free yet.
func (a *Allocator) SetRetired(r *api.Retired) {
	a.DropRetired(r.ID)
	a.retired[r.ID] = r
	a.take(retiredAddresses(r))
	for _, h := range r.Addresses {
		a.net(h.NetworkID).retired++
	}
	if r.Network != nil && r.Network.VNI != 0 && a.vnis[r.Network.VNI] == "" {
		a.vnis[r.Network.VNI] = r.ID
	}
}

// DropRetired tells that what was retired is free.
func (a *Allocator) DropRetired(id string) {
	r := a.retired[id]
	if r == nil {
		return
	}
	delete(a.retired, id)
	for _, h := range r.Addresses {
		a.net(h.NetworkID).retired--
	}
	a.free(retiredAddresses(r))
	if r.Network != nil && a.vnis[r.Network.VNI] == id {
		delete(a.vnis, r.Network.VNI)
	}
	for _, h := range r.Addresses {
		a.tidy(h.NetworkID)
	}
}

// tidy forgets a network of which nothing is known any more.
func (a *Allocator) tidy(id string) {
	if n := a.networks[id]; n != nil && n.Network == nil && len(n.used) == 0 {
		delete(a.networks, id)
	}
}

func retiredAddresses(r *api.Retired) []held {
	list := make([]held, 0, len(r.Addresses))
	for _, h := range r.Addresses {
		list = append(list, held{h.NetworkID, h.Addr})
	}
	return list
}
