package leader

import (
	"context"
	"reflect"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
)

// catchUp moves on to the newest view and takes in exactly the commits that led
// to it: what planners were told and what they read must be the same state.
func (s *session) catchUp(ctx context.Context) error {
	v := s.Store.View()
	// The store shows a commit just before it sends it. Waiting for an index
	// that is already there returns after both.
	if err := s.Store.WaitIndex(ctx, v.Index()); err != nil {
		return err
	}
	for more := true; more && len(s.kept) <= subscription; {
		select {
		case b, ok := <-s.changes:
			s.keep(b, ok)
			more = ok
		default:
			more = false
		}
	}
	for len(s.kept) > 0 && (s.kept[0].Lost != nil || s.kept[0].Index <= v.Index()) {
		b := s.kept[0]
		s.kept = s.kept[1:]
		if b.Lost != nil {
			return b.Lost
		}
		if b.Index > s.view.Index() {
			for _, c := range b.Changes {
				s.change(c)
			}
		}
	}
	s.view = v
	return nil
}

// keep stores a batch until catchUp; ok is false when there will be no more.
func (s *session) keep(b store.Batch, ok bool) {
	if !ok {
		b = store.Batch{Lost: errResync}
	}
	s.kept = append(s.kept, b)
}

// change tells the planners of one change and finds the services it concerns.
func (s *session) change(c store.Change) {
	if c.New != nil {
		s.tellAll(c.New, false)
	} else {
		s.tellAll(c.Old, true)
	}
	switch c.Kind() {
	case api.KindCluster:
		s.keys = true
		s.clusterChanged(c)
	case api.KindNode:
		s.keys = true
		s.nodeChanged(c)
	case api.KindService:
		s.serviceChanged(c)
	case api.KindTask:
		s.taskChanged(c)
	}
}

func (s *session) clusterChanged(c store.Change) {
	before, _ := c.Old.(*api.Cluster)
	after, _ := c.New.(*api.Cluster)
	if before != nil && after != nil && reflect.DeepEqual(before.Spec.Orchestration, after.Spec.Orchestration) {
		return
	}
	for _, service := range s.Store.View().Services() {
		s.dirty[service.ID] = true
	}
}

// nodeChanged concerns the services with tasks on the node and the global ones,
// unless nothing changed that an orchestrator looks at.
func (s *session) nodeChanged(c store.Change) {
	before, _ := c.Old.(*api.Node)
	after, _ := c.New.(*api.Node)
	if before != nil && after != nil && sameForOrchestrators(before, after) {
		return
	}
	for _, t := range s.Store.View().TasksByNode(nodeID(before, after)) {
		if t.ServiceID != "" {
			s.dirty[t.ServiceID] = true
		}
	}
	for serviceID := range s.globals {
		s.dirty[serviceID] = true
	}
	s.standalone = true
}

func nodeID(before, after *api.Node) string {
	if after != nil {
		return after.ID
	}
	return before.ID
}

func sameForOrchestrators(a, b *api.Node) bool {
	return a.Status.State == b.Status.State && a.Status.Addr == b.Status.Addr && a.DownSince.Equal(b.DownSince) &&
		reflect.DeepEqual(a.Spec, b.Spec) && a.Description.Hostname == b.Description.Hostname &&
		a.Description.Platform == b.Description.Platform &&
		reflect.DeepEqual(a.Description.Engine.Labels, b.Description.Engine.Labels)
}

func (s *session) serviceChanged(c store.Change) {
	if after, ok := c.New.(*api.Service); ok {
		s.dirty[after.ID] = true
		s.global(after)
		return
	}
	before := c.Old.(*api.Service)
	s.dirty[before.ID] = true
	delete(s.globals, before.ID)
	delete(s.wake, before.ID)
}

// taskChanged concerns the task's service, unless the task only made progress
// that nobody waits for.
func (s *session) taskChanged(c store.Change) {
	before, _ := c.Old.(*api.Task)
	after, _ := c.New.(*api.Task)
	if before == nil {
		before = after
	}
	s.standalone = s.standalone || before.Standalone()
	if after != nil && before != after && before.DesiredState == after.DesiredState && before.NodeID == after.NodeID &&
		preparing(before) && preparing(after) {
		return
	}
	if before.ServiceID != "" {
		s.dirty[before.ServiceID] = true
	}
}

func preparing(t *api.Task) bool {
	return api.Rank(t.Status.State) < api.Rank(swarm.TaskStateRunning)
}
