package leader

import (
	"context"
	"slices"
	"time"

	"shoal/control/alloc"
	"shoal/control/api"
	"shoal/control/orchestrate"
	"shoal/control/orchestrate/global"
	"shoal/control/orchestrate/gossipkeys"
	"shoal/control/orchestrate/history"
	"shoal/control/orchestrate/keys"
	"shoal/control/orchestrate/replicated"
	"shoal/control/orchestrate/restart"
	"shoal/control/orchestrate/standalone"
	"shoal/control/orchestrate/update"
	"shoal/control/schedule"
	"shoal/control/store"
)

// session is what the loop knows between two full looks at the state.
type session struct {
	Config
	changes <-chan store.Batch
	// kept are commits received but not taken in yet.
	kept  []store.Batch
	view  *store.View
	alloc *alloc.Allocator
	sched *schedule.Scheduler

	// dirty has the services to be looked at, wake when others want to be.
	dirty map[string]bool
	wake  map[string]time.Time
	// keys says that the epochs of tunnel keys and the gossip keys are to be looked
	// at, wakeKeys when.
	keys     bool
	wakeKeys time.Time
	// standalone says that the tasks of no service are to be looked at.
	standalone bool
	// globals are the global services: any node may concern them.
	globals map[string]bool
	// troubles are the allocator's complaints that were logged.
	troubles map[string]string
	// late is the step of the gossip keys of which it was logged that it waits.
	late uint64

	// now is the time of the round.
	now time.Time
}

func newSession(c Config, changes <-chan store.Batch) *session {
	v := c.Store.View()
	s := &session{
		Config: c, changes: changes, view: v,
		alloc: alloc.Load(v), sched: schedule.Load(v),
		keys: true, standalone: true, dirty: map[string]bool{}, wake: map[string]time.Time{}, globals: map[string]bool{}, troubles: map[string]string{},
	}
	for _, service := range v.Services() {
		s.dirty[service.ID] = true
		s.global(service)
	}
	// A dead leader may have left tasks of services that are gone.
	for _, t := range v.Tasks() {
		if t.ServiceID != "" {
			s.dirty[t.ServiceID] = true
		}
	}
	return s
}

func (s *session) global(service *api.Service) {
	if service.Spec.Mode.Global != nil {
		s.globals[service.ID] = true
	}
}

// round lets every planner look once and returns what they want done. Each sees
// what those before it decided, so that mostly one round is enough.
func (s *session) round() []api.Op {
	s.now = s.Clock.Now().UTC()
	d := newDraft(s.view)
	s.enter(d, s.alloc.Plan(s.now), s.tellScheduler)
	for _, serviceID := range s.due() {
		s.planService(d, serviceID)
	}
	s.planStandalone(d)
	s.enter(d, s.alloc.Plan(s.now), s.tellScheduler)
	s.enter(d, s.sched.Plan(s.now), s.alloc.Draft)
	s.planKeys(d)
	s.logTroubles()
	return d.list()
}

// due returns the services to look at now, and takes them off the list.
func (s *session) due() []string {
	for serviceID, at := range s.wake {
		if !s.now.Before(at) {
			s.dirty[serviceID] = true
		}
	}
	ids := make([]string, 0, len(s.dirty))
	for serviceID := range s.dirty {
		ids = append(ids, serviceID)
		delete(s.wake, serviceID)
	}
	clear(s.dirty)
	slices.Sort(ids)
	return ids
}

// planService lets the orchestrators look at one service, in this order: what
// should exist, which version, what replaces what ended, what may be forgotten.
func (s *session) planService(d *draft, serviceID string) {
	var wake time.Time
	apply := func(p orchestrate.Plan) {
		s.enter(d, p.Ops, s.tellDraft)
		wake = orchestrate.Earlier(wake, p.Wake)
	}
	if service := d.Service(serviceID); service != nil {
		apply(replicated.Plan(s.now, d, service, s.NewID))
		apply(global.Plan(s.now, d, service, s.NewID))
		apply(update.Plan(s.now, d, service, s.NewID))
		// After a rollback the spec's version is known only once it is
		// committed: the rest has to wait for that.
		if d.Service(serviceID).SpecVersion == service.SpecVersion {
			apply(restart.Plan(s.now, d, d.Service(serviceID), s.NewID))
		}
	}
	apply(history.Plan(s.now, d, serviceID))
	if !wake.IsZero() {
		s.wake[serviceID] = wake
	}
}

// planStandalone looks at the tasks of no service when one of them or a node changed.
func (s *session) planStandalone(d *draft) {
	if s.standalone {
		s.standalone = false
		s.enter(d, standalone.Plan(d, d.StandaloneTasks()).Ops, s.tellDraft)
	}
}

// planKeys looks at the epochs of tunnel keys and at the gossip keys when nodes or
// cluster changed, or when it is time.
func (s *session) planKeys(d *draft) {
	if !s.keys && (s.wakeKeys.IsZero() || s.now.Before(s.wakeKeys)) {
		return
	}
	tunnels := keys.Plan(s.now, d)
	s.enter(d, tunnels.Ops, s.tellDraft)
	gossip := gossipkeys.Plan(s.now, d, s.NewKey)
	s.enter(d, gossip.Ops, s.tellDraft)
	s.logLate(d)
	s.keys, s.wakeKeys = false, orchestrate.Earlier(tunnels.Wake, gossip.Wake)
}

// enter drafts operations and tells the other planners of them.
func (s *session) enter(d *draft, ops []api.Op, tell func(api.Object, bool)) {
	for _, op := range ops {
		d.add(op)
		tell(op.Object, op.Action == api.ActionDelete)
	}
}

func (s *session) tellAll(o api.Object, gone bool) {
	s.tellAllocator(o, gone)
	s.tellScheduler(o, gone)
}

// tellDraft tells of what is planned, tellAll of what is committed.
func (s *session) tellDraft(o api.Object, gone bool) {
	s.alloc.Draft(o, gone)
	s.tellScheduler(o, gone)
}

func (s *session) tellAllocator(o api.Object, gone bool) {
	switch o := o.(type) {
	case *api.Cluster:
		s.alloc.SetCluster(o)
	case *api.Node:
		either(gone, s.alloc.DropNode, s.alloc.SetNode, o.ID, o)
	case *api.Network:
		either(gone, s.alloc.DropNetwork, s.alloc.SetNetwork, o.ID, o)
	case *api.Service:
		either(gone, s.alloc.DropService, s.alloc.SetService, o.ID, o)
	case *api.Task:
		either(gone, s.alloc.DropTask, s.alloc.SetTask, o.ID, o)
	case *api.Retired:
		either(gone, s.alloc.DropRetired, s.alloc.SetRetired, o.ID, o)
	}
}

func (s *session) tellScheduler(o api.Object, gone bool) {
	switch o := o.(type) {
	case *api.Node:
		either(gone, s.sched.DropNode, s.sched.SetNode, o.ID, o)
	case *api.Task:
		either(gone, s.sched.DropTask, s.sched.SetTask, o.ID, o)
	}
}

func either[T any](gone bool, drop func(string), set func(T), key string, o T) {
	if gone {
		drop(key)
	} else {
		set(o)
	}
}

// logTroubles reports each complaint of the allocator once.
func (s *session) logTroubles() {
	found := s.alloc.Trouble()
	for key, err := range found {
		if s.troubles[key] != err.Error() {
			s.troubles[key] = err.Error()
			s.Logger.Warn("cannot allocate", "object", key, "error", err)
		}
	}
	for key := range s.troubles {
		if found[key] == nil {
			delete(s.troubles, key)
		}
	}
}

// logLate reports once of each step of the gossip keys that it waits for long.
func (s *session) logLate(d *draft) {
	names := gossipkeys.Late(s.now, d)
	if len(names) == 0 {
		return
	}
	if g := d.Cluster().GossipChange; s.late != g.Step {
		s.late = g.Step
		s.Logger.Warn("a change of the gossip keys waits for nodes", "step", g.Step, "phase", g.Phase, "since", g.Since, "nodes", names)
	}
}

// wait returns when something changed or a planner wants to look again.
func (s *session) wait(ctx context.Context) error {
	if len(s.kept) > 0 { // commits that came while the last look was taken
		return s.settle(ctx)
	}
	var alarm <-chan time.Time
	if next := s.next(); !next.IsZero() {
		var stop func()
		alarm, stop = s.Clock.Timer(next.Sub(s.Clock.Now()))
		defer stop()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-alarm:
		return s.catchUp(ctx)
	case b, ok := <-s.changes:
		s.keep(b, ok)
	}
	if s.Clock.Now().Sub(s.now) > patient {
		// After a pause somebody may be waiting for the answer.
		return s.catchUp(ctx)
	}
	return s.settle(ctx)
}

// next is the earliest time at which a planner wants to look again.
func (s *session) next() (next time.Time) {
	next = s.wakeKeys
	for _, at := range s.wake {
		next = orchestrate.Earlier(next, at)
	}
	return next
}

// settle gathers changes until it is quiet or patience ends.
func (s *session) settle(ctx context.Context) error {
	end, stopEnd := s.Clock.Timer(patient)
	defer stopEnd()
	for {
		calm, stopCalm := s.Clock.Timer(quiet)
		select {
		case <-ctx.Done():
			stopCalm()
			return ctx.Err()
		case <-end:
			stopCalm()
			return s.catchUp(ctx)
		case <-calm:
			return s.catchUp(ctx)
		case b, ok := <-s.changes:
			stopCalm()
			if s.keep(b, ok); !ok || len(s.kept) > subscription {
				return s.catchUp(ctx)
			}
		}
	}
}
