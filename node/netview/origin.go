package netview

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"shoal/control/api"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
)

// origin is where a packet starts.
type origin struct {
	// node is the node's id: where the sender is, or which node an outsider reaches.
	node string
	// task is set on the sender's own node.
	task *plan.Local
	// name is the task's, "" for the node itself or an outsider.
	name    string
	outside bool
	addr    netip.Addr // of an outsider, invalid for anyone
}

// notes say what a task of this node has to do with the packets that are shown.
func (o origin) notes() []string {
	if o.name == "" || o.task != nil {
		return nil
	}
	return []string{o.name + " has no network namespace of its own: its packets are those of its node, and so are its names"}
}

// idMin is the shortest part of an id that finds a task.
const idMin = 4

// origin reads where a packet comes from: a task, "host", a node, "outside" or an
// address outside.
func (s *Sources) origin(q url.Values) (origin, error) {
	from := q.Get("from")
	if a, err := netip.ParseAddr(from); err == nil || from == "outside" {
		o := origin{outside: true, addr: a}
		o.node, err = s.entry(q)
		return o, err
	}
	if from == "host" || from == s.NodeID {
		return origin{node: s.NodeID}, nil
	}
	if o, ok := s.localTask(from); ok {
		return o, nil
	}
	if id, err := s.nodeID(from); err == nil {
		return origin{node: id}, nil
	}
	return s.remoteTask(from)
}

// whither says why another node is asked.
func (s *Sources) whither(o origin, from string) string {
	node := s.node(o.node)
	switch {
	case o.outside:
		return from + " enters by node " + node
	case o.name == "":
		return node + " is another node"
	}
	return from + " is on node " + node
}

// entry is the node that an outsider reaches: the one asked for, else the one
// that has the address, else this one.
func (s *Sources) entry(q url.Values) (string, error) {
	if name := q.Get("entry"); name != "" {
		return s.nodeID(name)
	}
	host, _ := splitPort(q.Get("to"))
	if id, err := s.nodeID(host); err == nil {
		return id, nil
	}
	to, err := netip.ParseAddr(host)
	if err != nil {
		return s.NodeID, nil
	}
	for id, n := range s.Nodes {
		if n.DataPathAddr == to || n.Status.Addr == to.String() {
			return id, nil
		}
	}
	return s.NodeID, nil
}

func (s *Sources) localTask(from string) (origin, bool) {
	view := s.View()
	for _, l := range s.Fabric.Locals() {
		r, _ := view.Record(s.NodeID, l.Task.ID)
		if means(from, plan.TaskName(l.Task), l.Task.ID, r.Value.ContainerID) {
			return origin{node: s.NodeID, task: &l, name: plan.TaskName(l.Task)}, true
		}
	}
	return origin{}, false
}

// means says whether from is the task: its name, with or without its id, or the
// beginning of its id or its container's.
func means(from, name, id, container string) bool {
	if from == name || from == name+"."+id {
		return true
	}
	return len(from) >= idMin && (strings.HasPrefix(id, from) || strings.HasPrefix(container, from))
}

// remoteTask finds a task by the endpoint records of the other nodes.
func (s *Sources) remoteTask(from string) (origin, error) {
	var tasks []string
	for _, r := range s.View().All() {
		if r.Key == endpoint.NodeKey {
			continue
		}
		if means(from, r.Value.TaskName, r.Key, r.Value.ContainerID) {
			return origin{node: r.Owner, name: r.Value.TaskName}, nil
		}
		if r.Value.ServiceName == from {
			tasks = append(tasks, r.Value.TaskName+" on "+s.node(r.Owner))
		}
	}
	slices.Sort(tasks)
	if len(tasks) > 0 {
		return origin{}, api.Errorf(api.Invalid, "%s is a service: say which task of it sends: %s", from, strings.Join(tasks, ", "))
	}
	return origin{}, api.Errorf(api.NotFound, "no task, container or node %q is known here: give a task (web.3, or an id), a node's name, \"host\", \"outside\", or an address outside", from)
}

// splitPort takes the port off a destination: "web:80", "10.0.0.1:80", "[fd00::1]:80".
func splitPort(to string) (host, port string) {
	if _, err := netip.ParseAddr(strings.Trim(to, "[]")); err == nil {
		return strings.Trim(to, "[]"), ""
	}
	i := strings.LastIndexByte(to, ':')
	if i < 0 {
		return to, ""
	}
	return strings.Trim(to[:i], "[]"), to[i+1:]
}
