package fabric

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"shoal/control/api"
	"shoal/node/plan"
	"shoal/overlay/wireguard"
)

// keyPause is how often a task that waits for the node's keys looks again.
const keyPause = 100 * time.Millisecond

// awaitCarried returns nil when the node carries all networks of the task. It
// waits for keys that are still to come, for as long as ctx allows, and refuses
// at once what the node cannot do at all: no task runs on a network whose frames
// would have to go in the clear.
func (f *Fabric) awaitCarried(ctx context.Context, t *api.Task) error {
	for {
		why := ""
		blocked := f.Wish().Blocked
		for i, a := range t.NetworksAttachments {
			if blocked[a.Network.ID] != "" {
				why = blocked[a.Network.ID]
			} else if err := f.Trouble(); err != nil && api.Encrypted(&t.NetworksAttachments[i].Network) {
				return fmt.Errorf("encrypted network %s: %w", a.Network.Spec.Name, err)
			}
		}
		if why == "" {
			return nil
		}
		if f.cfg.Tunnels().Missing != "" {
			return errors.New(why)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", why, ctx.Err())
		case <-time.After(keyPause):
		}
		tried := func(error) bool { return true } // trouble elsewhere is not the task's
		if err := f.loop.WaitFor(ctx, f.loop.Trigger(), tried); err != nil {
			return err
		}
	}
}

// listen reads the vault and notes which peers were heard lately. What cannot be
// read is read again by applyVault, which says so.
func (f *Fabric) listen(ctx context.Context) {
	if f.cfg.Vault == nil {
		return
	}
	actual, err := f.cfg.Vault.Read(ctx)
	if err != nil {
		return
	}
	f.heard = &actual
	f.live = map[string]map[wireguard.Key]bool{}
	for name, device := range actual.Devices {
		f.live[name] = map[wireguard.Key]bool{}
		for key, peer := range device.Peers {
			if peer.Live {
				f.live[name][key] = true
			}
		}
	}
}

// applyVault makes the vault what is wished. In a full step, what differs from what
// it had was somebody else's doing.
func (f *Fabric) applyVault(ctx context.Context, wish wireguard.Desired, full bool) error {
	if f.cfg.Vault == nil {
		return nil
	}
	actual := f.heard
	if actual == nil {
		now, err := f.cfg.Vault.Read(ctx)
		if err != nil {
			return err
		}
		actual = &now
	}
	ops := wireguard.Plan(wish, *actual, f.cfg.Self.VaultPath())
	if len(ops) == 0 {
		return nil
	}
	if full && f.known.vaulted {
		for _, op := range wireguard.Plan(f.known.vault, *actual, f.cfg.Self.VaultPath()) {
			f.healed.note(PartVault, f.cfg.Self.VaultPath(), op.String())
		}
	}
	return f.cfg.Vault.Apply(ctx, ops)
}

// applyLinks makes vault and overlay right. The vault comes before the tunnels
// whose sockets are in it, and goes after them. Trouble with it is the trouble of
// the tasks on encrypted networks alone: they are refused, and it is tried again.
func (f *Fabric) applyLinks(ctx context.Context, out plan.Output, full bool) error {
	same := sameVault(out.Vault, f.known.vault)
	f.moved = f.moved || !same
	wished := out.Vault.Namespace != ""
	if wished && (full || !same) {
		f.tryVault(ctx, out.Vault, full)
	}
	err := f.applyOverlay(ctx, out.Overlay, full)
	if !wished && (full || !same) && err == nil {
		f.tryVault(ctx, out.Vault, full)
	}
	return err
}

func (f *Fabric) tryVault(ctx context.Context, wish wireguard.Desired, full bool) {
	err := f.applyVault(ctx, wish, full)
	f.known.vault, f.known.vaulted = wish, err == nil
	f.setTrouble(err)
}

func (f *Fabric) setTrouble(err error) {
	f.current.Lock()
	defer f.current.Unlock()
	f.current.trouble = err
}

// Trouble says why the node cannot encrypt at the moment though its kernel could,
// nil when nothing is wrong.
func (f *Fabric) Trouble() error {
	f.current.Lock()
	defer f.current.Unlock()
	return f.current.trouble
}

// sameVault compares two wishes.
func sameVault(a, b wireguard.Desired) bool {
	same := func(x, y wireguard.Device) bool {
		return x.Name == y.Name && x.Port == y.Port && x.Public == y.Public && x.Private == y.Private && slices.Equal(x.Peers, y.Peers)
	}
	return a.Namespace == b.Namespace && a.Addr == b.Addr && a.MTU == b.MTU &&
		slices.EqualFunc(a.Devices, b.Devices, same) && slices.Equal(a.Routes, b.Routes)
}

// Vault reads what the kernel has of encrypted networks' sockets.
func (f *Fabric) Vault(ctx context.Context) (wireguard.Actual, error) {
	if f.cfg.Vault == nil {
		return wireguard.Actual{}, nil
	}
	return f.cfg.Vault.Read(ctx)
}

// vaultDrift says what differs between the vault and the wish.
func (f *Fabric) vaultDrift(ctx context.Context, wish wireguard.Desired) (out []string, err error) {
	if f.cfg.Vault == nil {
		return nil, nil
	}
	actual, err := f.cfg.Vault.Read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the vault: %w", err)
	}
	for _, op := range wireguard.Plan(wish, actual, f.cfg.Self.VaultPath()) {
		out = append(out, fmt.Sprintf("vault: %s", op))
	}
	return out, nil
}
