package gossip

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/hashicorp/memberlist"
)

const (
	// lateMax bounds the refused nodes that are noted.
	lateMax = 1024
	// goneMax bounds the removed nodes that are noted.
	goneMax = 1 << 14
)

// door decides which of the nodes with a good certificate take part: those that
// Config.Admit admits now, and the own one. Members are asked about again and
// again, so one that was removed is out although it was let in.
type door struct {
	self string
	// admits is Config.Admit, nil to let everybody in.
	admits func(nodeID string) error

	mu sync.Mutex
	// late are the addresses of refused nodes that said they are alive, by id: one
	// that this node has only not been told of yet is joined as soon as it is.
	late map[string]string
	// gone are the nodes that the managers have removed, as far as Forget was told.
	gone map[string]struct{}
}

func newDoor(self string, admits func(string) error) *door {
	return &door{self: self, admits: admits, late: map[string]string{}, gone: map[string]struct{}{}}
}

// refusal names the node and says why it takes no part, nil where it does.
func (d *door) refusal(nodeID string) error {
	if d.admits == nil || nodeID == d.self {
		return nil
	}
	if err := d.admits(nodeID); err != nil {
		return fmt.Errorf("gossip with node %s is refused: %w", nodeID, err)
	}
	return nil
}

// admitted leaves out what is of owners that are refused: others may know it a while
// longer, and Serf tells newcomers of events that are past. What is of a node that is
// only not known yet comes with the comparison of tables when that one is met.
func admitted[T any](d *door, items []T, owner func(T) string) []T {
	return slices.DeleteFunc(items, func(item T) bool { return d.refusal(owner(item)) != nil })
}

// NotifyAlive keeps nodes that are not admitted out of the membership, whoever
// tells of them: one stranger in another's list does not stop the rest of it. It is
// a memberlist.AliveDelegate and runs with memberlist's lock held.
func (d *door) NotifyAlive(peer *memberlist.Node) error {
	err := d.refusal(peer.Name)
	if err == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, noted := d.late[peer.Name]; noted || len(d.late) < lateMax {
		d.late[peer.Name] = net.JoinHostPort(peer.Addr.String(), strconv.Itoa(int(peer.Port)))
	}
	return err
}

// due takes the addresses of nodes that were refused and are admitted now.
func (d *door) due() (addrs []string) {
	d.mu.Lock()
	late := maps.Clone(d.late)
	d.mu.Unlock()
	for id, addr := range late {
		if d.refusal(id) != nil {
			continue
		}
		addrs = append(addrs, addr)
		d.mu.Lock()
		delete(d.late, id)
		d.mu.Unlock()
	}
	return addrs
}

// remove notes that a node was removed from the cluster.
func (d *door) remove(nodeID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.gone) >= goneMax {
		clear(d.gone) // of these memberlist knows nothing any more
	}
	d.gone[nodeID] = struct{}{}
	delete(d.late, nodeID)
}

func (d *door) isGone(nodeID string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, gone := d.gone[nodeID]
	return gone
}
