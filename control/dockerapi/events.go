package dockerapi

import (
	"context"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"

	"shoal/control/api"
	"shoal/control/store"
)

// eventBuffer is how many commits a reader of events may lie behind.
const eventBuffer = 1024

// membershipCheck is how often Events looks whether the node has become a
// manager, or a manager of another cluster.
const membershipCheck = time.Second

// Events calls send for every change of a service, node or network of the
// cluster from now on, in order and from one goroutine, until ctx ends; it
// returns nil then, else the error of send. While the node is not a manager
// there are no such events. A reader that falls far behind, and one whose
// manager takes its state from a snapshot, misses the events in between.
func (a *API) Events(ctx context.Context, send func(events.Message) error) error {
	check := time.NewTicker(membershipCheck)
	defer check.Stop()
	for {
		if s := a.cfg.Store(); s != nil {
			if err := a.follow(ctx, s, check.C, send); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-check.C:
		}
	}
}

// follow sends the events of one store until ctx ends, the store is not this
// node's any more, or changes were lost.
func (a *API) follow(ctx context.Context, s *store.Store, check <-chan time.Time, send func(events.Message) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := s.Subscribe(ctx, eventBuffer)
	for {
		select {
		case <-check:
			if a.cfg.Store() != s {
				return nil
			}
		case batch, ok := <-batches:
			if !ok || batch.Lost != nil {
				return nil
			}
			if err := a.sendEvents(batch, send); err != nil {
				return err
			}
		}
	}
}

func (a *API) sendEvents(batch store.Batch, send func(events.Message) error) error {
	for _, c := range batch.Changes {
		m, ok := eventOf(c, a.cfg.Now)
		if !ok {
			continue
		}
		if err := send(m); err != nil {
			return err
		}
	}
	return nil
}

// eventOf makes the event of a change; ok is false for changes that Docker has
// no event for. A removal leaves no time behind, so it is stamped with now.
func eventOf(c store.Change, now func() time.Time) (m events.Message, ok bool) {
	m.Scope = scopeSwarm
	newest := c.New
	var at time.Time
	switch {
	case c.Old == nil:
		m.Action, at = events.ActionCreate, c.New.ObjectMeta().CreatedAt
	case c.New == nil:
		m.Action, at, newest = events.ActionRemove, now(), c.Old
	default:
		m.Action, at = events.ActionUpdate, c.New.ObjectMeta().UpdatedAt
	}
	m.Time, m.TimeNano = at.Unix(), at.UnixNano()
	m.Actor.ID = newest.ObjectID()
	switch o := newest.(type) {
	case *api.Service:
		m.Type = events.ServiceEventType
		old, _ := c.Old.(*api.Service)
		m.Actor.Attributes = serviceAttributes(old, o)
	case *api.Node:
		m.Type = events.NodeEventType
		old, _ := c.Old.(*api.Node)
		m.Actor.Attributes = nodeAttributes(old, o)
	case *api.Network:
		if o.Predefined { // it was there before the managers knew
			return m, false
		}
		m.Type = events.NetworkEventType
		m.Actor.Attributes = attributes{"name": o.Spec.Name}
	default:
		return m, false
	}
	return m, true
}

type attributes map[string]string

// changed notes a value that differs. A value that was not there before has no old.
func (a attributes) changed(key, old, now string) {
	if old == now {
		return
	}
	if old != "" {
		a[key+".old"] = old
	}
	a[key+".new"] = now
}

func serviceAttributes(old, s *api.Service) attributes {
	a := attributes{"name": s.Spec.Name}
	if old == nil || old == s {
		return a
	}
	a.changed("image", imageOf(old), imageOf(s))
	a.changed("replicas", replicasOf(old), replicasOf(s))
	if s.UpdateStatus != nil {
		a.changed("updatestate", updateState(old), updateState(s))
	}
	return a
}

func imageOf(s *api.Service) string {
	if c := s.Spec.TaskTemplate.ContainerSpec; c != nil {
		return c.Image
	}
	return ""
}

func replicasOf(s *api.Service) string {
	if m := s.Spec.Mode.Replicated; m != nil && m.Replicas != nil {
		return strconv.FormatUint(*m.Replicas, 10)
	}
	return ""
}

func updateState(s *api.Service) string {
	if s.UpdateStatus != nil {
		return string(s.UpdateStatus.State)
	}
	return ""
}

func nodeAttributes(old, n *api.Node) attributes {
	a := attributes{"name": nodeName(n)}
	if old == nil || old == n {
		return a
	}
	a.changed("availability", string(old.Spec.Availability), string(n.Spec.Availability))
	a.changed("role", string(old.Spec.Role), string(n.Spec.Role))
	a.changed("state", string(old.Status.State), string(n.Status.State))
	if was, is := old.ManagerStatus, n.ManagerStatus; was != nil && is != nil {
		a.changed("leader", strconv.FormatBool(was.Leader), strconv.FormatBool(is.Leader))
		a.changed("reachability", string(was.Reachability), string(is.Reachability))
	}
	return a
}

func nodeName(n *api.Node) string {
	if n.Spec.Name != "" {
		return n.Spec.Name
	}
	return n.Description.Hostname
}
