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

func (a *API) listNodes(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	f, err := wire.ParseFilters(r, "name", "id", "label", "node.label", "role", "membership")
	if err != nil {
		return err
	}
	if err := checkNodeFilters(f); err != nil {
		return err
	}
	out := []swarm.Node{}
	for _, n := range a.store().View().Nodes() {
		if nodeFits(f, n) {
			out = append(out, showNode(n))
		}
	}
	slices.SortFunc(out, func(x, y swarm.Node) int { return strings.Compare(x.ID, y.ID) })
	return wire.WriteJSON(w, http.StatusOK, out)
}

func checkNodeFilters(f wire.Filters) error {
	for _, role := range f["role"] {
		if role != "" && role != string(swarm.NodeRoleManager) && role != string(swarm.NodeRoleWorker) {
			return api.Errorf(api.Internal, "Invalid role filter: '%s'", role)
		}
	}
	for _, m := range f["membership"] {
		if m != "" && m != "accepted" && m != "pending" {
			return api.Errorf(api.Internal, "Invalid membership filter: '%s'", m)
		}
	}
	return nil
}

func nodeFits(f wire.Filters, n *api.Node) bool {
	return f.Prefix("name", n.Description.Hostname) &&
		f.Prefix("id", n.ID) &&
		f.Labels("label", n.Description.Engine.Labels) &&
		f.Labels("node.label", n.Spec.Labels) &&
		f.Exact("role", string(n.Spec.Role)) &&
		f.Exact("membership", "accepted")
}

// showNode is the node as Docker shows it.
func showNode(n *api.Node) swarm.Node {
	out := n.Node
	out.Spec.Labels = present(out.Spec.Labels)
	return out
}

func (a *API) inspectNode(w http.ResponseWriter, _ *http.Request, vars map[string]string) error {
	n, err := findNode(a.store().View(), vars["id"])
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, showNode(n))
}

func checkAvailability(av swarm.NodeAvailability, mayBeEmpty bool) error {
	switch av {
	case swarm.NodeAvailabilityActive, swarm.NodeAvailabilityPause, swarm.NodeAvailabilityDrain:
		return nil
	case "":
		if mayBeEmpty {
			return nil
		}
	}
	return api.Errorf(api.Invalid, "invalid Availability: %q", av)
}

func (a *API) updateNode(_ http.ResponseWriter, r *http.Request, vars map[string]string) error {
	var spec swarm.NodeSpec
	if err := wire.ReadJSON(r, &spec); err != nil {
		return err
	}
	version, err := wire.ObjectVersion(r, "node")
	if err != nil {
		return err
	}
	if spec.Role != swarm.NodeRoleManager && spec.Role != swarm.NodeRoleWorker {
		return api.Errorf(api.Invalid, "invalid Role: %q", spec.Role)
	}
	if err := checkAvailability(spec.Availability, false); err != nil {
		return err
	}
	return a.change(r.Context(), func(v *store.View) ([]api.Op, error) {
		n, err := updatedNode(v, vars["id"], version, spec)
		if err != nil {
			return nil, err
		}
		return []api.Op{api.Update(n)}, nil
	})
}

// updatedNode is the stored node with the user's spec.
func updatedNode(v *store.View, ref string, version uint64, spec swarm.NodeSpec) (*api.Node, error) {
	old, err := findNode(v, ref)
	if err != nil {
		return nil, err
	}
	if err := checkRead(version, old.Version, old.SpecVersion); err != nil {
		return nil, err
	}
	if old.Spec.Role == swarm.NodeRoleManager && spec.Role == swarm.NodeRoleWorker {
		if err := mayDemote(v, old); err != nil {
			return nil, err
		}
	}
	if err := api.CheckNodeLabels(spec.Labels); err != nil {
		return nil, err
	}
	n := old.Copy()
	n.Spec = spec
	return n, nil
}

func mayDemote(v *store.View, n *api.Node) error {
	m := countManagers(v, n.ID)
	if m.total <= 1 {
		return api.Errorf(api.Invalid, "attempting to demote the last manager of the swarm")
	}
	if !m.quorumWithout {
		return api.Errorf(api.Invalid, "can't remove member from the raft: this would result in a loss of quorum")
	}
	return nil
}

func (a *API) removeNode(_ http.ResponseWriter, r *http.Request, vars map[string]string) error {
	force := wire.Bool(r, "force")
	return a.change(r.Context(), func(v *store.View) ([]api.Op, error) {
		n, err := findNode(v, vars["id"])
		if err != nil {
			return nil, err
		}
		if n.Spec.Role == swarm.NodeRoleManager {
			return nil, api.Errorf(api.Invalid,
				"node %s is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal", n.ID)
		}
		if !force && n.Status.State == swarm.NodeStateReady {
			return nil, api.Errorf(api.Invalid, "node %s is not down and can't be removed", n.ID)
		}
		return append(a.orphanOps(v, n.ID), api.Delete(n)), nil
	})
}

// orphanOps ends the tasks of a node that is removed: nobody will report on
// them again.
func (a *API) orphanOps(v *store.View, nodeID string) []api.Op {
	var ops []api.Op
	for _, t := range v.TasksByNode(nodeID) {
		if !t.Alive() {
			continue
		}
		orphan := t.Copy()
		orphan.Status = swarm.TaskStatus{
			Timestamp: a.cfg.Now(), State: swarm.TaskStateOrphaned,
			Message: "Task belonged to a node that has been deleted",
		}
		ops = append(ops, api.Status(orphan))
	}
	return ops
}
