package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

const assignedFile = "assigned.json"

// Assigned is what the managers told this node, by id.
type Assigned struct {
	Revision uint64
	Cluster  *api.Cluster
	Tasks    map[string]*api.Task
	Networks map[string]*api.Network
	Services map[string]*api.Service
	Nodes    map[string]*api.Node
}

func newAssigned() *Assigned {
	return &Assigned{
		Tasks: map[string]*api.Task{}, Networks: map[string]*api.Network{},
		Services: map[string]*api.Service{}, Nodes: map[string]*api.Node{},
	}
}

// apply takes one message. Objects are replaced, never changed in place.
func (s *Assigned) apply(m api.Assignment) {
	if m.Full {
		*s = *newAssigned()
	}
	s.Revision = m.Revision
	for _, op := range m.Ops {
		gone := op.Action == api.ActionDelete
		switch o := op.Object.(type) {
		case *api.Cluster:
			if s.Cluster = o; gone {
				s.Cluster = nil
			}
		case *api.Task:
			put(s.Tasks, o.ID, o, gone)
		case *api.Network:
			put(s.Networks, o.ID, o, gone)
		case *api.Service:
			put(s.Services, o.ID, o, gone)
		case *api.Node:
			put(s.Nodes, o.ID, o, gone)
		}
	}
}

func put[T any](m map[string]T, id string, obj T, gone bool) {
	if gone {
		delete(m, id)
		return
	}
	m[id] = obj
}

// addressed reports whether the task's service exists and its name stands for the
// tasks' own addresses: it has no virtual one.
func (a *Agent) addressed(t *api.Task) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.assigned.Services[t.ServiceID]
	attached := slices.ContainsFunc(t.NetworksAttachments, func(at swarm.NetworkAttachment) bool { return len(at.Addresses) > 0 })
	return s != nil && attached && s.Spec.EndpointSpec != nil && s.Spec.EndpointSpec.Mode == swarm.ResolutionModeDNSRR
}

func (s *Assigned) clone() Assigned {
	return Assigned{
		Revision: s.Revision, Cluster: s.Cluster, Tasks: maps.Clone(s.Tasks),
		Networks: maps.Clone(s.Networks), Services: maps.Clone(s.Services), Nodes: maps.Clone(s.Nodes),
	}
}

// List returns a map's values ordered by id.
func List[T any](m map[string]T) []T {
	out := make([]T, 0, len(m))
	for _, id := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[id])
	}
	return out
}

// LoadAssigned reads what an earlier run of the agent with that directory was
// told last; nothing, when there was none.
func LoadAssigned(dir string) (*Assigned, error) {
	s, path := newAssigned(), filepath.Join(dir, assignedFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("assignments of an earlier run: %w", err)
	}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("assignments of an earlier run in %s: %w", path, err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("assignments of an earlier run in %s: %w", path, err)
	}
	return s, nil
}

// check refuses what apply cannot have written; a task's id names a directory.
func (s *Assigned) check() error {
	return errors.Join(
		checkIDs("task", s.Tasks, func(t *api.Task) string { return t.ID }),
		checkIDs("network", s.Networks, func(n *api.Network) string { return n.ID }),
		checkIDs("service", s.Services, func(v *api.Service) string { return v.ID }),
		checkIDs("node", s.Nodes, func(n *api.Node) string { return n.ID }),
	)
}

func checkIDs[T any](kind string, m map[string]*T, id func(*T) string) error {
	if m == nil {
		return fmt.Errorf("no list of %ss", kind)
	}
	for key, o := range m {
		if o == nil || id(o) != key || !validID(key) {
			return fmt.Errorf("%s %q is damaged", kind, key)
		}
	}
	return nil
}

// validID says whether an id can name a directory.
func validID(id string) bool {
	return filepath.IsLocal(id) && filepath.Base(id) == id && id != "."
}

func (a *Agent) save() error {
	a.mu.Lock()
	raw, err := json.Marshal(a.assigned)
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("assignments: %w", err)
	}
	return writeFile(filepath.Join(a.cfg.Dir, assignedFile), raw)
}

// writeFile replaces a file in one step, so that a crash leaves the old or the
// new content and never a half.
func writeFile(path string, content []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

// sweep removes what earlier runs left and nobody assigns any more. It runs only
// after a full set from a manager: in ignorance nothing is removed.
func (a *Agent) sweep() {
	entries, err := os.ReadDir(filepath.Join(a.cfg.Dir, "tasks"))
	if err != nil {
		a.cfg.Logger.Error("task directories cannot be listed", "error", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range entries {
		if a.workers[e.Name()] == nil {
			a.levels.holdAll(e.Name())
			a.employ(newWorker(a, e.Name(), nil))
		}
	}
}
