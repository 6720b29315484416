package dispatch

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/rpc"
	"shoal/control/store"
)

// attachWait bounds how long a node waits for the addresses of a container.
const attachWait = 10 * time.Second

// Attach looks at the networks that a node wants to put a container of its own
// on, and makes the task that stands for it there. It returns once the task has
// its addresses and is the node's. A network that is not there is api.NotFound,
// one that takes services only api.Forbidden; a task that gets no address is taken
// back, and why it got none is the error.
func (d *Dispatcher) Attach(ctx context.Context, nodeID string, r api.AttachRequest) (api.AttachReply, error) {
	t, err := d.leading()
	if err != nil {
		return api.AttachReply{}, err
	}
	view := d.cfg.Store.View()
	node, err := member(view, nodeID)
	if err != nil {
		return api.AttachReply{}, err
	}
	networks, err := attachable(view, node, r.Networks)
	if err != nil || r.TaskID == "" {
		return replyOf(networks), err
	}
	switch known := view.Task(r.TaskID); {
	case known == nil:
		err = d.place(ctx, attachment(d.cfg.Now(), nodeID, networks, r), networks)
	case !known.Standalone() || known.NodeID != nodeID:
		err = api.Errorf(api.Forbidden, "task %s is not a container of node %s", r.TaskID, nodeID)
	}
	if err == nil {
		err = t.awaitAddresses(ctx, nodeID, r.TaskID)
	}
	return replyOf(networks), err
}

// attachment is the task that stands for a container on the networks.
func attachment(now time.Time, nodeID string, networks []*api.Network, r api.AttachRequest) *api.Task {
	t := &api.Task{}
	t.ID, t.NodeID, t.CreatedAt, t.UpdatedAt = r.TaskID, nodeID, now, now
	t.Name, t.Labels = r.Name, map[string]string{}
	t.Spec.Runtime = swarm.RuntimeNetworkAttachment
	t.Spec.NetworkAttachmentSpec = &swarm.NetworkAttachmentSpec{ContainerID: r.ContainerID}
	for i, n := range networks {
		t.Spec.Networks = append(t.Spec.Networks, swarm.NetworkAttachmentConfig{Target: n.ID, Aliases: r.Networks[i].Aliases})
	}
	t.DesiredState = swarm.TaskStateRunning
	t.Status = swarm.TaskStatus{Timestamp: now, State: swarm.TaskStateNew, Message: "created"}
	return t
}

// attachable finds the networks, and refuses those that the node may not put a
// container of its own on.
func attachable(view *store.View, node *api.Node, refs []swarm.NetworkAttachmentConfig) (found []*api.Network, err error) {
	if len(refs) == 0 {
		return nil, api.Errorf(api.Invalid, "a container outside services needs a network to be on")
	}
	for _, ref := range refs {
		n, err := networkByRef(view, ref.Target)
		if err != nil {
			return nil, err
		}
		switch can, why := node.Capabilities.Encrypts(); {
		case slices.ContainsFunc(found, func(other *api.Network) bool { return other.ID == n.ID }):
			return nil, api.Errorf(api.Invalid, "network %s is named twice", n.Spec.Name)
		case n.Predefined && len(refs) > 1:
			return nil, api.Errorf(api.Invalid, "a container on the network %s is on no other", n.Spec.Name)
		case !n.Spec.Attachable && !n.Predefined:
			return nil, api.Errorf(api.Forbidden, "network %s is not manually attachable: only services can be on it; "+
				"make one for containers too with docker network create -d overlay --attachable", n.Spec.Name)
		case api.Encrypted(&n.Network) && !can:
			return nil, api.Errorf(api.Forbidden, "network %s is encrypted, which node %s cannot do: %s", n.Spec.Name, node.Description.Hostname, why)
		}
		found = append(found, n)
	}
	return found, nil
}

// place makes the task, and the nodes' own networks among those that it is on known
// to the managers' state, where nobody asked for them before.
func (d *Dispatcher) place(ctx context.Context, task *api.Task, networks []*api.Network) error {
	var ops []api.Op
	for _, n := range networks {
		if n.Predefined && d.cfg.Store.View().Network(n.ID) == nil {
			ops = append(ops, api.Create(n))
		}
	}
	err := d.cfg.Propose(ctx, append(slices.Clip(ops), api.Create(task)))
	if len(ops) > 0 && api.KindOf(err) == api.Conflict { // somebody else asked at the same time
		err = d.cfg.Propose(ctx, []api.Op{api.Create(task)})
	}
	return err
}

// networkByRef finds a network by id, name or unique beginning of its id.
func networkByRef(view *store.View, ref string) (*api.Network, error) {
	if n := api.NodeNetwork(ref); n != nil {
		return n, nil
	}
	o, err := view.Resolve(api.KindNetwork, ref)
	if err != nil {
		return nil, err
	}
	return o.(*api.Network), nil
}

func replyOf(networks []*api.Network) (reply api.AttachReply) {
	for _, n := range networks {
		reply.Networks = append(reply.Networks, api.AttachedNetwork{ID: n.ID, Name: n.Spec.Name})
	}
	return reply
}

// awaitAddresses returns when the task is its node's. One that cannot be is taken
// back, so that nothing of a refusal stays.
func (t *term) awaitAddresses(ctx context.Context, nodeID, taskID string) error {
	ctx, cancel := context.WithTimeout(ctx, attachWait)
	defer cancel()
	for {
		changed := t.cfg.Store.Changed(api.KindTask)
		task := t.cfg.Store.View().Task(taskID)
		switch {
		case task == nil:
			return api.Errorf(api.Unavailable, "the managers gave the container up")
		case api.Rank(task.Status.State) >= api.Rank(swarm.TaskStateAssigned):
			return nil
		case task.Status.Err != "":
			return t.takeBack(ctx, nodeID, taskID, api.Errorf(api.Unavailable, "%s", task.Status.Err))
		}
		select {
		case <-changed:
		case <-t.ctx.Done():
			return t.notLeader()
		case <-ctx.Done():
			return t.takeBack(ctx, nodeID, taskID, api.Errorf(api.Unavailable, "the container got no address within %s", attachWait))
		}
	}
}

// takeBack undoes an Attach, for a reason.
func (t *term) takeBack(ctx context.Context, nodeID, taskID string, reason error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachWait)
	defer cancel()
	if err := t.Detach(ctx, nodeID, taskID); err != nil {
		t.cfg.Logger.Warn("a container that was refused still has a task", "task", taskID, "err", err)
	}
	return reason
}

// Detach takes back the task that stands for a container of the node. Of one that
// has run the node reports the end: this is for one that it gives up before.
func (d *Dispatcher) Detach(ctx context.Context, nodeID, taskID string) error {
	if _, err := d.leading(); err != nil {
		return err
	}
	task := d.cfg.Store.View().Task(taskID)
	if task == nil {
		return nil
	}
	if !task.Standalone() || task.NodeID != nodeID {
		return api.Errorf(api.Forbidden, "task %s is not a container of node %s", taskID, nodeID)
	}
	return d.cfg.Propose(ctx, []api.Op{api.Delete(task)})
}

func (d *Dispatcher) serveAttach(w http.ResponseWriter, r *http.Request) error {
	var in api.AttachRequest
	if err := rpc.ReadJSON(r, &in); err != nil {
		return err
	}
	peer, _ := rpc.PeerFrom(r.Context())
	reply, err := d.Attach(r.Context(), peer.NodeID, in)
	if err != nil {
		return err
	}
	return rpc.WriteJSON(w, reply)
}

func (d *Dispatcher) serveDetach(w http.ResponseWriter, r *http.Request) error {
	var in api.DetachRequest
	if err := rpc.ReadJSON(r, &in); err != nil {
		return err
	}
	peer, _ := rpc.PeerFrom(r.Context())
	if err := d.Detach(r.Context(), peer.NodeID, in.TaskID); err != nil {
		return err
	}
	return rpc.WriteJSON(w, struct{}{})
}
