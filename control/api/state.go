package api

import "github.com/moby/moby/api/types/swarm"

// rank orders task states; a task's state never falls. The numbers are
// Docker's own, spaced for states to come.
var rank = map[swarm.TaskState]int{
	swarm.TaskStateNew: 0, swarm.TaskStateAllocated: 64, swarm.TaskStatePending: 128,
	swarm.TaskStateAssigned: 192, swarm.TaskStateAccepted: 256, swarm.TaskStatePreparing: 320,
	swarm.TaskStateReady: 384, swarm.TaskStateStarting: 448, swarm.TaskStateRunning: 512,
	swarm.TaskStateComplete: 576, swarm.TaskStateShutdown: 640, swarm.TaskStateFailed: 704,
	swarm.TaskStateRejected: 768, swarm.TaskStateRemove: 800, swarm.TaskStateOrphaned: 832,
}

// Rank returns the place of a task state in the order in which states may
// follow each other; an unknown or empty state ranks as new.
func Rank(s swarm.TaskState) int { return rank[s] }

// Terminal says whether a task in that state will never run again.
func Terminal(s swarm.TaskState) bool { return Rank(s) > Rank(swarm.TaskStateRunning) }

// Wanted says whether the task is meant to run, now or after a delay.
func (t *Task) Wanted() bool { return Rank(t.DesiredState) <= Rank(swarm.TaskStateRunning) }

// Alive says whether the task may hold resources on its node.
func (t *Task) Alive() bool { return !Terminal(t.Status.State) }
