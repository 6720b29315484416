package sim

import (
	"context"
	"fmt"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
	"shoal/node/agent"
	"shoal/node/runtime"
)

// Kept complains about acknowledged writes that the leader does not know.
func (o *Operator) Kept() (out complaints) {
	leader := o.c.Leader()
	if leader == nil {
		out.add("no manager leads")
		return out
	}
	services, networks, removed := o.Wishes()
	v := managerView(leader)
	for name, id := range networks {
		if n := v.Network(id); n == nil || n.Spec.Name != name {
			out.add("acknowledged network %s (%s) is lost", name, id)
		}
	}
	for name, w := range services {
		s := v.Service(w.id)
		switch {
		case s == nil:
			out.add("acknowledged service %s (%s) is lost", name, w.id)
		case !sameWish(s.Spec, w.spec):
			out.add("service %s is not what was acknowledged last: %+v instead of %+v", name, s.Spec, w.spec)
		}
	}
	for id := range removed {
		if v.Service(id) != nil {
			out.add("removed service %s is back", id)
		}
	}
	return out
}

// sameWish compares what the operator of the simulation sets.
func sameWish(have, want swarm.ServiceSpec) bool {
	if want.Mode.Replicated != nil && want.Mode.Replicated.Replicas != nil {
		if have.Mode.Replicated == nil || *have.Mode.Replicated.Replicas != *want.Mode.Replicated.Replicas {
			return false
		}
	}
	return have.TaskTemplate.ContainerSpec.Image == want.TaskTemplate.ContainerSpec.Image && have.Labels[counterLabel] == want.Labels[counterLabel]
}

// Converged complains unless exactly the tasks that were asked for run, on hosts
// that run, in containers that run, and no host runs anything else.
func (o *Operator) Converged() (out complaints) {
	leader := o.c.Leader()
	if leader == nil {
		out.add("no manager leads")
		return out
	}
	services, _, _ := o.Wishes()
	v := managerView(leader)
	o.c.nodesKnown(v, &out)
	wanted := map[string]bool{}
	for name, w := range services {
		running := 0
		for _, t := range v.TasksByService(w.id) {
			if down(v, t.NodeID) {
				continue // what a dead host ran is known to nobody
			}
			if w.taskIsFor(t) && t.Status.State == swarm.TaskStateRunning {
				running++
				wanted[t.ID] = true
				o.c.checkTask(w, t, &out)
			} else if !api.Terminal(t.Status.State) {
				out.add("service %s: task %s is %s, wanted %s: %s %s", name, t.ID, t.Status.State, t.DesiredState, t.Status.Message, t.Status.Err)
			}
		}
		if want := w.replicas(len(o.c.Hosts())); running != want {
			out.add("service %s runs %d of %d tasks", name, running, want)
		}
	}
	for _, h := range o.c.Hosts() {
		h.strangers(wanted, v, &out)
	}
	return out
}

// down says whether the managers count a node as dead.
func down(v *store.View, nodeID string) bool {
	n := v.Node(nodeID)
	return n != nil && n.Status.State == swarm.NodeStateDown
}

// nodesKnown complains unless the managers know which hosts run.
func (c *Cluster) nodesKnown(v *store.View, out *complaints) {
	for _, h := range c.hosts {
		n, up := v.Node(h.id), h.Daemon() != nil
		switch {
		case n == nil:
			out.add("node %s is not known", h.name)
		case up && n.Status.State != swarm.NodeStateReady, !up && n.Status.State != swarm.NodeStateDown:
			out.add("node %s: state %s, daemon runs: %v", h.name, n.Status.State, up)
		}
	}
}

func (c *Cluster) checkTask(w wish, t *api.Task, out *complaints) {
	h := c.ByID(t.NodeID)
	if h == nil || h.Daemon() == nil {
		out.add("task %s runs on a node that does not (%s)", t.ID, t.NodeID)
		return
	}
	if t.Spec.ContainerSpec.Image != w.spec.TaskTemplate.ContainerSpec.Image {
		out.add("task %s runs %s instead of %s", t.ID, t.Spec.ContainerSpec.Image, w.spec.TaskTemplate.ContainerSpec.Image)
	}
	st, err := h.machine.runtime.Get(context.Background(), agent.ContainerID(t.ID))
	if err != nil || st.State != runtime.Running {
		out.add("task %s runs on %s without a running container: %s %v", t.ID, h.name, st.State, err)
	}
}

func describe(t *api.Task) string {
	if t == nil {
		return "forgotten"
	}
	return fmt.Sprintf("task of %s, %s, wanted %s", t.ServiceName, t.Status.State, t.DesiredState)
}

// strangers complains about containers that run and nobody wants.
func (h *Host) strangers(wanted map[string]bool, v *store.View, out *complaints) {
	list, err := h.machine.runtime.List(context.Background())
	if err != nil {
		out.add("containers of %s: %v", h.name, err)
	}
	for _, st := range list {
		id := st.Labels["com.docker.swarm.task.id"]
		if st.State == runtime.Running && !wanted[id] {
			out.add("%s runs a container of task %s that nobody wants (%s)", h.name, id, describe(v.Task(id)))
		}
		if st.State != runtime.Running && v.Task(id) == nil {
			out.add("%s keeps the container of task %s, which is forgotten", h.name, id)
		}
	}
}
