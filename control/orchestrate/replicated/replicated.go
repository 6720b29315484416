// Package replicated keeps a replicated service at its number of slots: it adds
// missing slots, removes those too many, and gives up tasks on nodes that may
// not keep them. Replacing a task within its slot is the restart package's work.
// It is pure: no clock, no writes, no placement.
package replicated

import (
	"cmp"
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/orchestrate"
	"shoal/control/schedule/constraint"
)

// Plan decides for one replicated service; other modes give an empty plan. New
// ids come from newID.
func Plan(now time.Time, v orchestrate.View, s *api.Service, newID func() string) orchestrate.Plan {
	var p orchestrate.Plan
	if s.Spec.Mode.Replicated == nil {
		return p
	}
	slots := orchestrate.Slots(s, v.TasksByService(s.ID))
	keep := slots
	if extra := len(slots) - replicas(s); extra > 0 {
		var drop []*orchestrate.Slot
		drop, keep = choose(slots, extra)
		for _, slot := range drop {
			for _, t := range slot.Tasks {
				p.Add(orchestrate.Desire(now, t, swarm.TaskStateRemove))
			}
		}
	}
	for _, slot := range keep {
		p.Add(slot.Settle(now, v, s)...)
		p.Add(leave(now, v, s, slot)...)
	}
	for _, number := range missing(slots, replicas(s)-len(slots)) {
		p.Add(api.Create(orchestrate.NewTask(now, newID(), s, number, "")))
	}
	return p
}

// replicas is the wished number of tasks; Docker's default is one.
func replicas(s *api.Service) int {
	if n := s.Spec.Mode.Replicated.Replicas; n != nil {
		return int(*n)
	}
	return 1
}

// leave gives up the slot's tasks whose node is gone, down or drained, or does
// not meet the constraints any more.
func leave(now time.Time, v orchestrate.View, s *api.Service, slot *orchestrate.Slot) []api.Op {
	var ops []api.Op
	for _, t := range slot.Live() {
		if t.NodeID == "" {
			continue
		}
		n := v.Node(t.NodeID)
		if orchestrate.Down(n) || orchestrate.Drained(n) || !constraint.Met(rules(s, t, n), n) {
			ops = append(ops, orchestrate.Desire(now, t, swarm.TaskStateShutdown))
		}
	}
	return ops
}

// rules are the constraints that bind a task: its service's, or its own while
// an update has not come to it yet.
func rules(s *api.Service, t *api.Task, n *api.Node) []string {
	if orchestrate.IsDirty(s, t, n) {
		return orchestrate.Constraints(&t.Spec)
	}
	return orchestrate.Constraints(&s.Spec.TaskTemplate)
}

// missing returns the count lowest slot numbers that are free.
func missing(slots []*orchestrate.Slot, count int) []int {
	taken := make(map[int]bool, len(slots))
	for _, s := range slots {
		taken[s.Number] = true
	}
	var free []int
	for n := 1; len(free) < count; n++ {
		if !taken[n] {
			free = append(free, n)
		}
	}
	return free
}

// choose picks the slots that a smaller service can best do without: first
// those that do not run, then always one from the node with most of them, and
// among equals the highest number.
func choose(slots []*orchestrate.Slot, count int) (drop, keep []*orchestrate.Slot) {
	byNode := map[string][]*orchestrate.Slot{}
	var idle []*orchestrate.Slot
	for _, s := range slots {
		if t := s.Running(); t != nil {
			byNode[t.NodeID] = append(byNode[t.NodeID], s)
		} else {
			idle = append(idle, s)
		}
	}
	for ; count > 0 && len(idle) > 0; count-- {
		drop = append(drop, idle[len(idle)-1])
		idle = idle[:len(idle)-1]
	}
	for ; count > 0; count-- {
		node := fullest(byNode)
		s := byNode[node]
		drop = append(drop, s[len(s)-1])
		byNode[node] = s[:len(s)-1]
	}
	for _, s := range slots {
		if !slices.Contains(drop, s) {
			keep = append(keep, s)
		}
	}
	return drop, keep
}

func fullest(byNode map[string][]*orchestrate.Slot) string {
	best := ""
	for node, slots := range byNode {
		if len(slots) == 0 {
			continue
		}
		if best == "" || order(byNode[best], slots) < 0 {
			best = node
		}
	}
	return best
}

func order(a, b []*orchestrate.Slot) int {
	if c := cmp.Compare(len(a), len(b)); c != 0 {
		return c
	}
	return cmp.Compare(a[len(a)-1].Number, b[len(b)-1].Number)
}
