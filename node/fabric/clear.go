package fabric

import (
	"context"
	"errors"
	"fmt"

	"shoal/dataplane/lb"
	"shoal/overlay/vxlan"
	"shoal/overlay/wireguard"
)

// Clear takes everything of ours out of the kernel, for a node that leaves its
// cluster. Run must have ended.
func (f *Fabric) Clear(ctx context.Context) error {
	var errs []error
	if _, err := f.cfg.Translator.Translate(ctx, lb.Translation{}); err != nil {
		errs = append(errs, fmt.Errorf("translation in %s: %w", place(""), err))
	}
	actual, err := f.cfg.Overlay.Read(ctx, vxlan.Desired{})
	if err == nil {
		err = f.cfg.Overlay.Apply(ctx, vxlan.Plan(vxlan.Desired{}, actual))
	}
	f.heard = nil
	vaultErr := f.applyVault(ctx, wireguard.Desired{}, false)
	_, sweepErr := f.cfg.Namespaces.Sweep(f.cfg.Self.NamespaceDir, func(string) bool { return false })
	return errors.Join(append(errs, err, vaultErr, sweepErr)...)
}
