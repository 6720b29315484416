package dockerapi

import "shoal/control/api"

// What there is to do about managers that are lost, and what leaving costs.
const (
	textNoQuorum = "a swarm that has lost its quorum is back when enough of its managers are, " +
		"with the state directories that they had or that were restored from a backup"
	textForce = "or use `--force` to leave all the same: the node's containers are removed, and so is its copy of the swarm's state."
)

// LeaveWarning is what a manager is told that would leave without force, one of
// so many managers that can be reached and that there are. It counts as if the
// one that leaves stayed a voter, for it goes whether or not the others agree.
func LeaveWarning(reachable, total int) error {
	const head = "You are attempting to leave the swarm on a node that is participating as a manager. "
	switch {
	case total <= 1:
		return api.Errorf(api.Unavailable, head+"Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ")
	case reachable-1 < total/2+1:
		return api.Errorf(api.Unavailable, head+"Removing this node leaves %d managers out of %d. Without a Raft quorum your swarm will be inaccessible: "+
			textNoQuorum+". Demote it first with `docker node demote`, or bring the others back, "+textForce, reachable-1, total)
	}
	return api.Errorf(api.Unavailable, head+"Demote it first with `docker node demote`, "+textForce)
}
