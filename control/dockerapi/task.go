package dockerapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/orchestrate"
	"shoal/control/store"
)

// taskName is the name of a task and of its container: service, slot (for a
// global service the node) and id. A container of no service has its own.
func taskName(t *api.Task) string {
	if t.Standalone() {
		return t.Name
	}
	if t.Slot != 0 {
		return fmt.Sprintf("%s.%d.%s", t.ServiceName, t.Slot, t.ID)
	}
	return fmt.Sprintf("%s.%s.%s", t.ServiceName, t.NodeID, t.ID)
}

func (a *API) listTasks(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	f, err := wire.ParseFilters(r, "name", "id", "label", "service", "node", "desired-state", "runtime", "_up-to-date")
	if err != nil {
		return err
	}
	v := a.store().View()
	if err := resolveTaskFilters(v, f); err != nil {
		return err
	}
	out := []swarm.Task{}
	for _, t := range candidateTasks(v, f) {
		if taskFits(v, f, t) && upToDate(v, f, t) {
			out = append(out, showTask(t))
		}
	}
	slices.SortFunc(out, func(x, y swarm.Task) int { return strings.Compare(x.ID, y.ID) })
	return wire.WriteJSON(w, http.StatusOK, out)
}

// resolveTaskFilters turns names of services and nodes into ids; one that does
// not exist is NotFound.
func resolveTaskFilters(v *store.View, f wire.Filters) error {
	for i, ref := range f["service"] {
		s, err := findService(v, ref)
		if err != nil {
			return err
		}
		f["service"][i] = s.ID
	}
	for i, ref := range f["node"] {
		n, err := findNode(v, ref)
		if err != nil {
			return err
		}
		f["node"][i] = n.ID
	}
	for _, state := range f["desired-state"] {
		if state != "" && api.Rank(swarm.TaskState(strings.ToLower(state))) == 0 && !strings.EqualFold(state, string(swarm.TaskStateNew)) {
			return api.Errorf(api.Internal, "Invalid desired-state filter: '%s'", state)
		}
	}
	return nil
}

// candidateTasks takes the narrowest index that the filters allow.
func candidateTasks(v *store.View, f wire.Filters) []*api.Task {
	var lists func(string) []*api.Task
	var ids []string
	switch {
	case f.Has("service"):
		lists, ids = v.TasksByService, f["service"]
	case f.Has("node"):
		lists, ids = v.TasksByNode, f["node"]
	default:
		return v.Tasks()
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	var all []*api.Task
	for _, id := range ids {
		all = append(all, lists(id)...)
	}
	return all
}

func taskFits(v *store.View, f wire.Filters, t *api.Task) bool {
	return f.Exact("service", t.ServiceID) &&
		f.Exact("node", t.NodeID) &&
		f.Prefix("id", t.ID) &&
		(!f.Has("name") || f.Prefix("name", taskName(t))) &&
		desiredFits(f, t) &&
		runtimeFits(f, t.Spec.Runtime) &&
		(!f.Has("label") || f.Labels("label", taskLabels(v, t)))
}

func desiredFits(f wire.Filters, t *api.Task) bool {
	return !f.Has("desired-state") || slices.ContainsFunc(f["desired-state"], func(s string) bool {
		return strings.EqualFold(s, string(t.DesiredState))
	})
}

// runtimeFits lets only containers through unless another runtime is asked for.
func runtimeFits(f wire.Filters, got swarm.RuntimeType) bool {
	if got == "" {
		got = swarm.RuntimeContainer
	}
	if !f.Has("runtime") {
		return got == swarm.RuntimeContainer
	}
	return f.Exact("runtime", string(got))
}

// taskLabels are the labels that the filter means: those of the task's service.
func taskLabels(v *store.View, t *api.Task) map[string]string {
	if s := v.Service(t.ServiceID); s != nil {
		return s.Spec.Labels
	}
	return t.Labels
}

// upToDate serves the filter of the progress display: only tasks that need not
// be replaced to follow the service's present spec.
func upToDate(v *store.View, f wire.Filters, t *api.Task) bool {
	if !f.Has("_up-to-date") {
		return true
	}
	s := v.Service(t.ServiceID)
	return s != nil && !orchestrate.IsDirty(s, t, v.Node(t.NodeID))
}

// showTask is the task as Docker shows it.
func showTask(t *api.Task) swarm.Task {
	out := t.Task
	out.Labels = present(out.Labels)
	if out.Spec.Runtime == "" {
		out.Spec.Runtime = swarm.RuntimeContainer
	}
	return out
}

func (a *API) inspectTask(w http.ResponseWriter, _ *http.Request, vars map[string]string) error {
	t, err := findTask(a.store().View(), vars["id"])
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, showTask(t))
}

// present makes an empty map of none, because clients tell {} from null.
func present(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
