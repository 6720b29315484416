package schedule

import (
	"container/heap"
	"strings"
	"time"
)

// branch is a part of the cluster in the tree that spread preferences make: a
// branch per value of the first label, below it one per value of the second, and
// so on. Without preferences the root is the only leaf.
type branch struct {
	// tasks counts the service's tasks below.
	tasks    int
	value    string
	children []*branch
	index    map[string]*branch
	leaf     places
}

// place is a node that may take the next task, with its rank among its peers.
type place struct {
	node    *node
	failing bool
	service int
	total   int
	turn    int
}

// insert adds a node below the branch.
func (b *branch) insert(now time.Time, g *group, n *node, keys []string) {
	b.tasks += n.services[g.serviceID]
	if len(keys) == 0 {
		heap.Push(&b.leaf, &place{n, n.failing(now, g.version), n.services[g.serviceID], n.total, len(b.leaf)})
		return
	}
	if b.index == nil {
		b.index = map[string]*branch{}
	}
	value := label(n, keys[0])
	child := b.index[value]
	if child == nil {
		child = &branch{value: value}
		b.index[value] = child
		b.children = append(b.children, child)
	}
	child.insert(now, g, n, keys[1:])
}

// label returns the node's value for a spread descriptor, "" without one.
func label(n *node, descriptor string) string {
	if key, ok := cutPrefixFold(descriptor, "node.labels."); ok {
		return n.Spec.Labels[key]
	}
	if key, ok := cutPrefixFold(descriptor, "engine.labels."); ok {
		return n.Description.Engine.Labels[key]
	}
	return ""
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return "", false
}

// best returns the node that takes the next task, nil when none is left.
func (b *branch) best() *node {
	path := b.path(nil)
	if path == nil {
		return nil
	}
	return path[len(path)-1].leaf[0].node
}

// path leads from b to the leaf with the best place: at every fork to where the
// service has the fewest tasks.
func (b *branch) path(path []*branch) []*branch {
	path = append(path, b)
	if b.index == nil {
		if len(b.leaf) == 0 {
			return nil
		}
		return path
	}
	var next *branch
	for _, c := range b.children {
		if !c.empty() && (next == nil || c.tasks < next.tasks) {
			next = c
		}
	}
	if next == nil {
		return nil
	}
	return next.path(path)
}

func (b *branch) empty() bool {
	if b.index == nil {
		return len(b.leaf) == 0
	}
	for _, c := range b.children {
		if !c.empty() {
			return false
		}
	}
	return true
}

// settle accounts for the task that the best node was just given, and takes the
// node out when it may not take another.
func (b *branch) settle(now time.Time, g *group, n *node, refused refusals) {
	path := b.path(nil)
	for _, on := range path {
		on.tasks++
	}
	leaf := path[len(path)-1]
	if !g.admit(n, refused) {
		heap.Pop(&leaf.leaf)
		return
	}
	top := leaf.leaf[0]
	top.service, top.total = n.services[g.serviceID], n.total
	heap.Fix(&leaf.leaf, 0)
}

// places is a heap, the best place on top.
type places []*place

func (h places) Len() int      { return len(h) }
func (h places) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Less orders as the package comment says; among equals the order of insertion.
func (h places) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.failing != b.failing {
		return b.failing
	}
	if a.service != b.service {
		return a.service < b.service
	}
	if a.total != b.total {
		return a.total < b.total
	}
	return a.turn < b.turn
}

// Push is for container/heap.
func (h *places) Push(x any) { *h = append(*h, x.(*place)) }

// Pop is for container/heap.
func (h *places) Pop() any {
	last := len(*h) - 1
	p := (*h)[last]
	*h = (*h)[:last]
	return p
}
