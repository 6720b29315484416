package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi"
	"shoal/control/raftnode"
)

// leaveTimeout bounds each goodbye: a cluster that does not answer must not keep
// a node that was told to go.
const leaveTimeout = 5 * time.Second

// Leave implements dockerapi.Lifecycle: it says goodbye where somebody listens,
// stops the node's tasks and forgets the cluster.
func (d *Daemon) Leave(ctx context.Context, force bool) error {
	m, err := d.beginLeave(force)
	if err != nil {
		return err
	}
	defer d.end(nil)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	m.goodbye(ctx)
	m.leaving = true
	d.stopMember()
	return errors.Join(d.removeTasks(ctx), d.standalone.Clear(ctx), d.forget())
}

// beginLeave notes that a leave is under way, so that nobody joins meanwhile and
// has the new membership forgotten with the old.
func (d *Daemon) beginLeave(force bool) (*member, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.member
	switch {
	case d.busy:
		return nil, errBusy()
	case m == nil:
		return nil, api.Errorf(api.Unavailable, "This node is not part of a swarm")
	case m.manager != nil && !force:
		return nil, leaveWarning(m.manager.Members())
	}
	d.busy = true
	return m, nil
}

func errBusy() error {
	return api.Errorf(api.Unavailable, "the node is joining or leaving a swarm just now")
}

// leaveWarning is what a manager, one of these, is told before it leaves without
// force.
func leaveWarning(members []raftnode.Member) error {
	total, reachable := 0, 0
	for _, member := range members {
		total++
		if member.Reachable {
			reachable++
		}
	}
	return dockerapi.LeaveWarning(reachable, total)
}

// goodbye tells the others. Whoever does not hear it finds out by itself.
func (m *member) goodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	log := m.d.cfg.Logger
	if m.manager != nil && len(m.manager.Members()) > 1 {
		if n := m.manager.View().Node(m.state.NodeID); n != nil {
			n = n.Copy()
			n.Status.State, n.Status.Message = swarm.NodeStateDown, "node left the swarm"
			n.DownSince = time.Now()
			if err := m.manager.Propose(ctx, []api.Op{api.NodeStatus(api.PartState, n)}); err != nil {
				log.Warn("the cluster does not know yet that this node leaves", "error", err)
			}
		}
		if err := m.manager.LeaveRaft(ctx); err != nil {
			log.Warn("this node leaves although the managers still count on it", "error", err)
		}
	}
	if m.net != nil {
		if err := m.net.Gossip().Leave(ctx); err != nil {
			log.Warn("not every node heard the goodbye", "error", err)
		}
	}
}

// removeTasks ends every container of the node that belongs to a task.
func (d *Daemon) removeTasks(ctx context.Context) error {
	list, err := d.runtime.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range list {
		if c.Labels["com.docker.swarm.task.id"] != "" {
			errs = append(errs, d.runtime.Remove(ctx, c.ID))
		}
	}
	return errors.Join(errs...)
}
