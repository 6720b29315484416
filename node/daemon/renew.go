package daemon

import (
	"context"
	"math/rand/v2"
	"time"

	"shoal/control/ca"
	"shoal/control/join"
)

// renewRetry is how long a failed renewal waits; certificates have weeks left then.
const renewRetry = time.Minute

// renew replaces the node's certificate long before it ends, at a random time,
// so that the nodes of a cluster do not all ask at once.
func (m *member) renew(ctx context.Context) error {
	due := ca.RenewAt(m.source.Current().Leaf, rand.Float64())
	for {
		timer := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		creds, err := join.Renew(ctx, m.client, m.managers(), m.source.Current().RootPEM())
		if err == nil {
			err = ca.SaveIdentity(m.d.path("certificates"), creds)
		}
		if err != nil {
			m.d.cfg.Logger.Error("the node's certificate is not renewed", "error", err, "again in", renewRetry)
			due = time.Now().Add(renewRetry)
			continue
		}
		m.source.Swap(creds)
		due = ca.RenewAt(creds.Leaf, rand.Float64())
	}
}
