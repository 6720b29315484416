package dockerapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/store"
)

// Names of service modes, as filters and refusals use them.
const (
	modeReplicated    = "replicated"
	modeGlobal        = "global"
	modeReplicatedJob = "replicated-job"
	modeGlobalJob     = "global-job"
)

// modesOf names the modes that are set; a valid spec has exactly one.
func modesOf(m swarm.ServiceMode) []string {
	var set []string
	if m.Replicated != nil {
		set = append(set, modeReplicated)
	}
	if m.Global != nil {
		set = append(set, modeGlobal)
	}
	if m.ReplicatedJob != nil {
		set = append(set, modeReplicatedJob)
	}
	if m.GlobalJob != nil {
		set = append(set, modeGlobalJob)
	}
	return set
}

func modeOf(m swarm.ServiceMode) string {
	if set := modesOf(m); len(set) > 0 {
		return set[0]
	}
	return modeReplicated
}

// statusSince is the first version whose clients may ask for status=true.
var statusSince = wire.Version{Major: 1, Minor: 41}

func (a *API) listServices(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	f, err := wire.ParseFilters(r, "name", "id", "label", "mode", "runtime")
	if err != nil {
		return err
	}
	withStatus, err := wire.StrictBool(r, "status")
	if err != nil {
		return err
	}
	withStatus = withStatus && !wire.VersionOf(r).Less(statusSince)
	v := a.store().View()
	out := []swarm.Service{}
	for _, s := range v.Services() {
		if !serviceFits(f, s) {
			continue
		}
		shown := showService(s)
		if withStatus {
			shown.ServiceStatus = serviceStatus(s, v.TasksByService(s.ID))
		}
		out = append(out, shown)
	}
	slices.SortFunc(out, func(x, y swarm.Service) int { return strings.Compare(x.Spec.Name, y.Spec.Name) })
	return wire.WriteJSON(w, http.StatusOK, out)
}

func serviceFits(f wire.Filters, s *api.Service) bool {
	return f.Prefix("name", s.Spec.Name) &&
		f.Prefix("id", s.ID) &&
		f.Labels("label", s.Spec.Labels) &&
		f.Exact("mode", modeOf(s.Spec.Mode)) &&
		runtimeFits(f, s.Spec.TaskTemplate.Runtime)
}

// serviceStatus counts the tasks of a service as `service ls` shows them.
func serviceStatus(s *api.Service, tasks []*api.Task) *swarm.ServiceStatus {
	var st swarm.ServiceStatus
	global := s.Spec.Mode.Global != nil
	if m := s.Spec.Mode.Replicated; m != nil && m.Replicas != nil {
		st.DesiredTasks = *m.Replicas
	}
	for _, t := range tasks {
		if t.Status.State == swarm.TaskStateRunning {
			st.RunningTasks++
		}
		if global && t.DesiredState == swarm.TaskStateRunning {
			st.DesiredTasks++
		}
	}
	return &st
}

// showService is the service as Docker shows it.
func showService(s *api.Service) swarm.Service {
	out := s.Service
	showSpec(&out.Spec)
	if out.PreviousSpec != nil {
		previous := *out.PreviousSpec
		showSpec(&previous)
		out.PreviousSpec = &previous
	}
	if out.Endpoint.Spec.Mode == "" && out.Spec.EndpointSpec != nil {
		out.Endpoint.Spec = *out.Spec.EndpointSpec
	}
	return out
}

func showSpec(s *swarm.ServiceSpec) {
	s.Labels = present(s.Labels)
	or(&s.TaskTemplate.Runtime, swarm.RuntimeContainer)
}

func (a *API) inspectService(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	defaults, err := wire.StrictBool(r, "insertDefaults")
	if err != nil {
		return err
	}
	s, err := findService(a.store().View(), vars["id"])
	if err != nil {
		return err
	}
	out := showService(s)
	if defaults {
		insertDefaults(&out.Spec)
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func (a *API) removeService(_ http.ResponseWriter, r *http.Request, vars map[string]string) error {
	return a.change(r.Context(), func(v *store.View) ([]api.Op, error) {
		s, err := findService(v, vars["id"])
		if err != nil {
			return nil, err
		}
		return []api.Op{api.Delete(s)}, nil
	})
}
