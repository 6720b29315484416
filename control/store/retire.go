package store

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// retire keeps what old gives up with the change to next, nil when it is deleted,
// from being given again until it is released. What no node can have heard of is
// free at once.
func (t *txn) retire(old, next api.Object) error {
	switch old := old.(type) {
	case *api.Service:
		after, _ := next.(*api.Service)
		return t.retireAddresses(old.ID, lost(serviceSeats(old), serviceSeats(after)))
	case *api.Task:
		after, _ := next.(*api.Task)
		if err := t.retireAddresses(old.ID, lost(taskSeats(old), taskSeats(after))); err != nil {
			return err
		}
		return t.leaveNetworks(old, after)
	case *api.Network:
		if next != nil || old.VNI == 0 {
			return nil
		}
		gone := *old
		gone.Removed, gone.Version.Index = true, t.index
		return t.putRetired(&api.Retired{ID: t.retiredID(old.ID), Network: &gone})
	case *api.Node:
		if next != nil || old.Number == 0 {
			return nil
		}
		return t.putRetired(&api.Retired{ID: t.retiredID(old.ID), Number: old.Number})
	}
	return nil
}

// retiredID is the owner's id and the version, so that one owner may give things
// up again and again.
func (t *txn) retiredID(owner string) string { return fmt.Sprintf("%s.%d", owner, t.index) }

func (t *txn) retireAddresses(owner string, addrs []api.RetiredAddress) error {
	if len(addrs) == 0 {
		return nil
	}
	r := &api.Retired{ID: t.retiredID(owner)}
	if old, ok := t.get(api.KindRetired, r.ID).(*api.Retired); ok { // the second time in one transaction
		r.Addresses = slices.Clone(old.Addresses)
	}
	r.Addresses = append(r.Addresses, addrs...)
	return t.putRetired(r)
}

// putRetired stores what was retired, as of now.
func (t *txn) putRetired(r *api.Retired) error {
	old := t.get(api.KindRetired, r.ID)
	created := t.now
	if old != nil {
		created = old.ObjectMeta().CreatedAt
	}
	t.retiring = true
	r.Meta = swarm.Meta{Version: swarm.Version{Index: t.index}, CreatedAt: created, UpdatedAt: t.now}
	return t.put(old, r)
}

// leaveNetworks notes, when a task lets go of networks that were removed before,
// that their release must wait for what the nodes do about that.
func (t *txn) leaveNetworks(old, next *api.Task) error {
	after := []string{}
	if next != nil {
		after = taskNetworks(next)
	}
	for _, id := range taskNetworks(old) {
		if slices.Contains(after, id) || t.get(api.KindNetwork, id) != nil {
			continue
		}
		if r, ok := t.first(api.KindRetired, byNetwork, id).(*api.Retired); ok {
			again := *r
			if err := t.putRetired(&again); err != nil {
				return err
			}
		}
	}
	return nil
}

// release deletes what was retired up to the version in level. A network that a
// live task is attached to stays.
func (t *txn) release(level api.Object) error {
	r, ok := level.(*api.Retired)
	if !ok {
		return api.Errorf(api.Invalid, "a %s cannot be released", level.ObjectKind())
	}
	t.retiring = true
	for _, gone := range list[*api.Retired](t.Txn, api.KindRetired, byIDPrefix, "") {
		if gone.Version.Index > r.Version.Index ||
			gone.Network != nil && t.first(api.KindTask, byNetwork, gone.Network.ID) != nil {
			continue
		}
		if err := t.delete(gone); err != nil {
			return err
		}
	}
	return nil
}

// checkReleased refuses an address that is retired, unless next itself is what is
// retired.
func (t *txn) checkReleased(next api.Object, network string, addr netip.Addr, key string) error {
	if t.before == nil || next.ObjectKind() == api.KindRetired {
		return nil
	}
	look := t.before
	if t.retiring {
		look = t.Txn
	}
	if r := first(look, api.KindRetired, byAddress, key); r != nil {
		return api.Errorf(api.Internal, "address %s of %s %s in network %s is not free yet: %s", addr, next.ObjectKind(), next.ObjectID(), network, r.ObjectID())
	}
	return nil
}

// lost lists what is in before and not in after.
func lost(before, after []api.RetiredAddress) []api.RetiredAddress {
	return slices.DeleteFunc(before, func(a api.RetiredAddress) bool { return slices.Contains(after, a) })
}

func serviceSeats(s *api.Service) (seats []api.RetiredAddress) {
	if s == nil {
		return nil
	}
	for _, v := range s.Endpoint.VirtualIPs {
		if v.Addr.IsValid() {
			seats = append(seats, api.RetiredAddress{NetworkID: v.NetworkID, Addr: v.Addr.Addr()})
		}
	}
	return seats
}

// taskSeats are the addresses that a node may have given effect to.
func taskSeats(task *api.Task) (seats []api.RetiredAddress) {
	if task == nil || !task.Alive() || api.Rank(task.Status.State) < api.Rank(swarm.TaskStateAssigned) {
		return nil
	}
	for i := range task.NetworksAttachments {
		a := &task.NetworksAttachments[i]
		for _, p := range a.Addresses {
			if p.IsValid() {
				seats = append(seats, api.RetiredAddress{NetworkID: a.Network.ID, Addr: p.Addr()})
			}
		}
	}
	return seats
}

func retiredAddresses(r *api.Retired) (keys []string) {
	for _, a := range r.Addresses {
		keys = add(keys, addressKey(a.NetworkID, a.Addr))
	}
	return keys
}

func removedNetwork(r *api.Retired) []string {
	if r.Network == nil {
		return nil
	}
	return some(r.Network.ID)
}

func removedVNI(r *api.Retired) []string {
	if r.Network == nil {
		return nil
	}
	return someNumber(r.Network.VNI)
}
