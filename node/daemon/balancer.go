package daemon

import (
	"context"
	"errors"
	"fmt"

	"shoal/dataplane/ipvs"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
)

// chooseBalancer picks the balancer that was asked for, or nftables, which costs a
// flow less, with IPVS for what only that can do; and says why.
func chooseBalancer(ctx context.Context, wish string) (driver lb.Driver, why string, err error) {
	if err := nft.Probe(ctx); err != nil {
		return nil, "", fmt.Errorf("published ports and names need nftables in every case: %w", err)
	}
	counting, missing := ipvs.New(), ipvs.Probe(ctx)
	switch wish {
	case "", "auto":
		if missing == nil {
			missing = whole(counting)
		}
		if missing == nil {
			return lb.NewEither(nft.New(), counting), "and ipvs where connections are to be counted", nil
		}
		return nft.New(), missing.Error(), nil
	case "ipvs":
		if missing != nil {
			return nil, "", missing
		}
		return counting, "asked for", nil
	case "nft":
		return nft.New(), "asked for", nil
	}
	return nil, "", fmt.Errorf("unknown balancer %q: choose auto, ipvs or nft", wish)
}

// whole says which algorithm a driver cannot do, nil when it can do all.
func whole(d lb.Driver) error {
	var errs []error
	for _, a := range lb.Algorithms {
		errs = append(errs, d.Supports(a))
	}
	return errors.Join(errs...)
}
