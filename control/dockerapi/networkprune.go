package dockerapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/network"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/store"
)

// pruneNetworks removes the cluster's networks that nothing uses. One that is
// taken into use meanwhile is kept.
func (a *API) pruneNetworks(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	f, err := wire.ParseFilters(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	until, err := readUntil(f["until"], a.cfg.Now())
	if err != nil {
		return err
	}
	report := network.PruneReport{NetworksDeleted: []string{}}
	v := a.store().View()
	for _, n := range v.Networks() {
		if !prunable(v, n) || !n.CreatedAt.Before(until) || !f.Labels("label", n.Spec.Labels) ||
			f.Has("label!") && f.Labels("label!", n.Spec.Labels) {
			continue
		}
		err := a.cfg.Proposer.Propose(r.Context(), []api.Op{api.Delete(n)})
		if api.KindOf(err) == api.Invalid {
			continue
		}
		if err != nil {
			return err
		}
		report.NetworksDeleted = append(report.NetworksDeleted, n.Spec.Name)
	}
	return wire.WriteJSON(w, http.StatusOK, report)
}

func prunable(v *store.View, n *api.Network) bool {
	if n.Spec.Ingress || n.Predefined {
		return false
	}
	_, err := networkUse(v, n)
	return err == nil
}

// readUntil reads how old a network must be: a duration before now, a time, or
// Unix seconds. Without one, every network is old enough.
func readUntil(values []string, now time.Time) (time.Time, error) {
	if len(values) == 0 {
		return now.AddDate(1, 0, 0), nil
	}
	if len(values) > 1 {
		return time.Time{}, api.Errorf(api.Invalid, "more than one until filter specified")
	}
	if d, err := time.ParseDuration(values[0]); err == nil {
		return now.Add(-d), nil
	}
	if at, err := time.Parse(time.RFC3339Nano, values[0]); err == nil {
		return at, nil
	}
	seconds, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil {
		return time.Time{}, api.Errorf(api.Invalid, "invalid filter 'until=%s'", values[0])
	}
	return time.Unix(seconds, 0), nil
}
