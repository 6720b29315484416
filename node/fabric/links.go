package fabric

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"shoal/overlay/vxlan"
)

// applyOverlay makes the overlay what is wished. Where only endpoints of other nodes
// came or went, it looks at their networks alone, whatever else the node carries.
func (f *Fabric) applyOverlay(ctx context.Context, wish vxlan.Desired, full bool) error {
	before := f.known.overlay
	same := before != nil && reflect.DeepEqual(wish, *before)
	f.moved = f.moved || !same
	if !full && same {
		return nil
	}
	f.known.overlay = nil
	var err error
	followed := false
	if !full && before != nil {
		if networks, only := onlyPeers(*before, wish); only {
			followed, err = f.followPeers(ctx, networks)
		}
	}
	if !followed {
		err = f.compareOverlay(ctx, wish, before, full)
	}
	if err == nil {
		f.known.overlay = &wish
	}
	return err
}

// compareOverlay reads all of it and puts right what differs from the wish. What
// differs from before in a full step was somebody else's doing.
func (f *Fabric) compareOverlay(ctx context.Context, wish vxlan.Desired, before *vxlan.Desired, full bool) error {
	actual, err := f.cfg.Overlay.Read(ctx, wish)
	if err != nil {
		return fmt.Errorf("read the overlay: %w", err)
	}
	f.remember(actual)
	errs := unread(actual, wish)
	ops := vxlan.Plan(wish, actual)
	if full && before != nil && len(ops) > 0 {
		for _, op := range vxlan.Plan(*before, actual) {
			f.healed.note(PartOverlay, "", op.String())
		}
	}
	for _, op := range ops {
		if add, ok := op.(vxlan.AddNamespace); ok {
			f.known.forget(add.Path) // nothing is in it yet
		}
	}
	if err := f.cfg.Overlay.Apply(ctx, ops); err != nil {
		errs = append(errs, fmt.Errorf("change the overlay: %w", err))
	}
	return errors.Join(errs...)
}

// unread says which namespaces could not be read. A network's goes on with the
// entries that it has; a task's has none.
func unread(actual vxlan.Actual, wish vxlan.Desired) (errs []error) {
	for _, path := range slices.Sorted(maps.Keys(actual.Unread)) {
		var networks []string
		for _, n := range wish.Networks {
			if n.Namespace == path {
				networks = append(networks, n.ID)
			}
		}
		errs = append(errs, behind(fmt.Errorf("read %s: %w", place(path), actual.Unread[path]), path, networks...))
	}
	return errs
}

// onlyPeers returns the networks whose peers differ, and whether nothing else does.
func onlyPeers(before, wish vxlan.Desired) (networks []vxlan.Network, only bool) {
	if len(before.Networks) != len(wish.Networks) || !reflect.DeepEqual(before.Gateway, wish.Gateway) ||
		!reflect.DeepEqual(before.Sandboxes, wish.Sandboxes) {
		return nil, false
	}
	for i, n := range wish.Networks {
		old := before.Networks[i]
		if !reflect.DeepEqual(old.Peers, n.Peers) {
			networks = append(networks, n)
		}
		old.Peers = n.Peers
		if !reflect.DeepEqual(old, n) {
			return nil, false
		}
	}
	return networks, true
}

// followPeers changes the entries of networks, and says whether it could: where a
// tunnel is missing or cannot be read, the whole is to be looked at.
func (f *Fabric) followPeers(ctx context.Context, networks []vxlan.Network) (done bool, err error) {
	var ops []vxlan.Op
	for _, n := range networks {
		tunnel, there, err := f.cfg.Overlay.ReadPeers(ctx, n)
		if err != nil || !there {
			return false, nil
		}
		ops = append(ops, vxlan.PlanPeers(n, tunnel)...)
	}
	if err := f.cfg.Overlay.Apply(ctx, ops); err != nil {
		return true, fmt.Errorf("change the overlay: %w", err)
	}
	return true, nil
}
