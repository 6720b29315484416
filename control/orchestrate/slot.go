package orchestrate

import (
	"sort"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// Slot is one place of a service that wants one running task: a number from 1
// of a replicated service, a node of a global one.
type Slot struct {
	// Number is 0 for a global service, NodeID is "" for a replicated one.
	Number int
	NodeID string
	// Tasks are the slot's tasks, newest first, without those to be removed.
	Tasks []*api.Task
}

// Slots groups the tasks of a service into slots, in the order of their number
// or node. A slot whose tasks are all to be removed does not exist any more.
func Slots(s *api.Service, tasks []*api.Task) []*Slot {
	type key struct {
		number int
		nodeID string
	}
	index := make(map[key]*Slot, len(tasks))
	slots := make([]*Slot, 0, len(tasks))
	for _, t := range tasks {
		if t.DesiredState == swarm.TaskStateRemove {
			continue
		}
		k := key{number: t.Slot}
		if s.Spec.Mode.Global != nil {
			k = key{nodeID: t.NodeID}
		}
		slot := index[k]
		if slot == nil {
			slot = &Slot{Number: k.number, NodeID: k.nodeID}
			index[k] = slot
			slots = append(slots, slot)
		}
		slot.Tasks = append(slot.Tasks, t)
	}
	for _, slot := range slots {
		sort.Slice(slot.Tasks, func(i, j int) bool { return newer(slot.Tasks[i], slot.Tasks[j]) })
	}
	sort.Slice(slots, func(i, j int) bool {
		if slots[i].Number != slots[j].Number {
			return slots[i].Number < slots[j].Number
		}
		return slots[i].NodeID < slots[j].NodeID
	})
	return slots
}

func newer(a, b *api.Task) bool {
	if !a.CreatedAt.Equal(b.CreatedAt) {
		return a.CreatedAt.After(b.CreatedAt)
	}
	if a.Wanted() != b.Wanted() {
		return a.Wanted()
	}
	return a.ID > b.ID
}

// Newest returns the slot's newest task.
func (s *Slot) Newest() *api.Task { return s.Tasks[0] }

// Live returns the tasks that are meant to run and have not ended, newest first.
func (s *Slot) Live() []*api.Task {
	var live []*api.Task
	for _, t := range s.Tasks {
		if t.Wanted() && t.Alive() {
			live = append(live, t)
		}
	}
	return live
}

// Running returns a task of the slot that runs and is meant to, nil without one.
func (s *Slot) Running() *api.Task {
	for _, t := range s.Tasks {
		if t.Wanted() && t.Status.State == swarm.TaskStateRunning {
			return t
		}
	}
	return nil
}

// Settle ends what an update with start-first order, or a leader that died
// half-way, left double in the slot: a running task makes every task of a worse
// version superfluous, and of several of one version one is enough.
func (s *Slot) Settle(now time.Time, v View, service *api.Service) []api.Op {
	live := s.Live()
	if len(live) < 2 {
		return nil
	}
	better := func(a, b *api.Task) bool {
		aDirty, bDirty := IsDirty(service, a, v.Node(a.NodeID)), IsDirty(service, b, v.Node(b.NodeID))
		if aDirty != bDirty {
			return bDirty
		}
		if aDirty && a.SpecVersion.Index != b.SpecVersion.Index {
			return a.SpecVersion.Index > b.SpecVersion.Index
		}
		if x, y := api.Rank(a.Status.State), api.Rank(b.Status.State); x != y {
			return x > y
		}
		return newer(b, a)
	}
	sort.SliceStable(live, func(i, j int) bool { return better(live[i], live[j]) })
	best := live[0]
	var ops []api.Op
	for _, t := range live[1:] {
		same := t.SpecVersion == best.SpecVersion
		if same || best.Status.State == swarm.TaskStateRunning {
			ops = append(ops, Desire(now, t, swarm.TaskStateShutdown))
		} else {
			best = t
		}
	}
	return ops
}
