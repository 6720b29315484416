package alloc

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// planTasks gives every new task its addresses, oldest and lowest slot first. A
// task that cannot have them stays new and says why.
func (a *Allocator) planTasks(now time.Time) []api.Op {
	tasks := make([]*taskState, 0, len(a.todoTasks))
	for id := range a.todoTasks {
		tasks = append(tasks, a.tasks[id])
	}
	slices.SortFunc(tasks, func(x, y *taskState) int {
		return cmp.Or(x.CreatedAt.Compare(y.CreatedAt), cmp.Compare(x.Slot, y.Slot), cmp.Compare(x.ID, y.ID))
	})
	var ops []api.Op
	for _, t := range tasks {
		next, err := a.allocateTask(now, t)
		if err != nil {
			next = refuse(now, t.Task, err)
		}
		if next != nil {
			a.SetTask(next)
			ops = append(ops, api.UpdateAnyway(next))
		}
	}
	return ops
}

// refuse returns the task with the reason in its status, nil when it is there.
func refuse(now time.Time, t *api.Task, reason error) *api.Task {
	if t.Status.Err == reason.Error() {
		return nil
	}
	c := *t
	c.Status.Timestamp = now
	c.Status.Message = "pending address allocation"
	c.Status.Err = reason.Error()
	return &c
}

// allocateTask returns the task as it is once it has its addresses: pending. A
// task of a service that is gone is left alone.
func (a *Allocator) allocateTask(now time.Time, t *taskState) (*api.Task, error) {
	c := *t.Task
	if t.ServiceID != "" {
		s := a.services[t.ServiceID]
		if s == nil {
			return nil, nil
		}
		if err := a.trouble[s.ID]; err != nil {
			return nil, err
		}
		if t.SpecVersion == s.SpecVersion {
			c.Ports = s.Endpoint.Ports
		}
	}
	nets, err := a.networksOf(&api.Service{Service: swarm.Service{Spec: swarm.ServiceSpec{TaskTemplate: t.Spec}}}, c.Ports)
	if err != nil {
		return nil, err
	}
	c.NetworksAttachments = nil
	for _, n := range nets {
		attachment, err := a.attach(n)
		if err != nil {
			a.detach(c.NetworksAttachments)
			return nil, err
		}
		c.NetworksAttachments = append(c.NetworksAttachments, attachment)
	}
	// The task will hold them once it is told of; until then nobody does.
	a.detach(c.NetworksAttachments)
	c.Status = swarm.TaskStatus{Timestamp: now, State: swarm.TaskStatePending, Message: "pending task scheduling"}
	return &c, nil
}

// attach takes an address of the network; a network that is not managed here
// gives none.
func (a *Allocator) attach(n *netState) (swarm.NetworkAttachment, error) {
	at := swarm.NetworkAttachment{Network: n.Network.Network}
	if !managed(n.Network) {
		return at, nil
	}
	addrs, err := n.give()
	if err != nil {
		return at, err
	}
	at.Addresses = addrs
	a.take(holds(n.ID, addrs))
	return at, nil
}

func (a *Allocator) detach(attachments []swarm.NetworkAttachment) {
	for _, at := range attachments {
		a.free(holds(at.Network.ID, at.Addresses))
	}
}

func holds(id string, addrs []netip.Prefix) []held {
	list := make([]held, 0, len(addrs))
	for _, p := range addrs {
		list = append(list, held{id, p.Addr()})
	}
	return list
}
