package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/agent"
	"shoal/node/runtime"
)

// standalones are containers of no service, by their id.
type standalones struct {
	mu    sync.Mutex
	specs map[string]swarm.ContainerSpec
	owner map[string]string // task ids by container ids
	made  []string
	moved map[string][]swarm.TaskState
}

func (s *standalones) set(id, taskID string, spec swarm.ContainerSpec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.specs == nil {
		s.specs, s.owner, s.moved = map[string]swarm.ContainerSpec{}, map[string]string{}, map[string][]swarm.TaskState{}
	}
	s.specs[id], s.owner[id] = spec, taskID
}

func (s *standalones) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.specs, id)
	delete(s.owner, id)
}

func (s *standalones) Wish(t *api.Task) (*swarm.ContainerSpec, *swarm.ResourceRequirements, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := t.Spec.NetworkAttachmentSpec.ContainerID
	spec, known := s.specs[id]
	return &spec, nil, known && s.owner[id] == t.ID
}

func (s *standalones) Owns(id, taskID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner, known := s.owner[id]
	return !known || owner == taskID
}

func (s *standalones) Keeps(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.specs[id]
	return known
}

func (s *standalones) Made(_ context.Context, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = append(s.made, id)
}

func (s *standalones) Moved(taskID string, st swarm.TaskStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved[taskID] = append(s.moved[taskID], st.State)
}

const boxID = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0"

// box is the task of a container of no service.
func box(id string) *api.Task {
	t := task(id, "", swarm.TaskStateRunning)
	t.ServiceID, t.ServiceName, t.Slot, t.Ports, t.Name = "", "", 0, nil, "box"
	t.Spec = swarm.TaskSpec{
		Runtime: swarm.RuntimeNetworkAttachment, NetworkAttachmentSpec: &swarm.NetworkAttachmentSpec{ContainerID: boxID},
		Networks: []swarm.NetworkAttachmentConfig{{Target: "net", Aliases: []string{"other"}}},
	}
	return t
}

func (n *node) container(id string) runtime.Status {
	n.t.Helper()
	st, err := n.runtime.Get(n.t.Context(), id)
	if err != nil {
		n.t.Fatal(err)
	}
	return st
}

// A container of no service has its own name and files, takes part at once, outlives
// the daemon, and stays when its task is over.
func TestStandalone(t *testing.T) {
	n := newNode(t)
	n.network.set(func(w *network) { w.deaf["t1"] = true }) // nobody waits until it listens
	n.alone.set(boxID, "t1", swarm.ContainerSpec{Image: "exposed", Env: []string{"A={{.Task.ID}}"}})
	n.assign(true, box("t1"))
	n.untilState("t1", swarm.TaskStateRunning)
	home := filepath.Join(agent.StandaloneDir(n.dir), boxID)
	st := n.container(boxID)
	if st.Name != "box" || st.State != runtime.Running || st.LogPath != filepath.Join(home, "log") || st.Labels["com.docker.swarm.task.id"] != "" {
		t.Errorf("container %+v", st)
	}
	v, _ := n.table.record("t1")
	if v.ServiceID != "" || v.TaskName != "box" || v.ContainerID != boxID || !slices.Equal(v.Attachments[0].Aliases, []string{"other"}) {
		t.Errorf("published %+v", v)
	}
	hosts, err := os.ReadFile(filepath.Join(home, "hosts"))
	if err != nil || !strings.Contains(string(hosts), "10.0.1.3\t"+boxID[:12]) {
		t.Errorf("hosts %q %v", hosts, err)
	}
	n.restart()
	n.untilState("t1", swarm.TaskStateRunning)
	if again := n.container(boxID); again.PID != st.PID {
		t.Errorf("after a restart of the node: %+v", again)
	}
	if err := n.runtime.Exit(boxID, 7); err != nil {
		t.Fatal(err)
	}
	ended := n.untilState("t1", swarm.TaskStateFailed)
	if ended.ContainerStatus.ExitCode != 7 || ended.ContainerStatus.ContainerID != boxID {
		t.Errorf("ended %+v", ended)
	}
	n.unassign(box("t1"))
	n.untilGone("t1")
	if st := n.container(boxID); st.State != runtime.Exited || st.ExitCode != 7 {
		t.Errorf("after its task: %+v", st)
	}
}

// It runs again as another task, and what is left of the first does not end it.
func TestStandaloneRunsAgain(t *testing.T) {
	n := newNode(t)
	n.alone.set(boxID, "t1", swarm.ContainerSpec{Image: "web"})
	n.assign(true, box("t1"))
	n.untilState("t1", swarm.TaskStateRunning)
	if err := n.runtime.Exit(boxID, 0); err != nil {
		t.Fatal(err)
	}
	n.untilState("t1", swarm.TaskStateComplete)
	n.alone.set(boxID, "t2", swarm.ContainerSpec{Image: "web"})
	n.assign(false, box("t2"))
	n.untilState("t2", swarm.TaskStateRunning)
	n.unassign(box("t1"))
	n.until("the first task is gone", func() bool { _, here := n.agent.Status("t1"); return !here })
	if st := n.container(boxID); st.State != runtime.Running {
		t.Errorf("the second run: %+v", st)
	}
	if len(n.alone.made) != 2 {
		t.Errorf("made %v", n.alone.made)
	}
}

// One that the managers take back stops and stays; one that is removed goes.
func TestStandaloneTakenBack(t *testing.T) {
	n := newNode(t)
	n.alone.set(boxID, "t1", swarm.ContainerSpec{Image: "web"})
	n.assign(true, box("t1"))
	n.untilState("t1", swarm.TaskStateRunning)
	n.unassign(box("t1"))
	n.untilGone("t1")
	if st := n.container(boxID); st.State != runtime.Exited {
		t.Errorf("taken back: %+v", st)
	}
	n.alone.set(boxID, "t2", swarm.ContainerSpec{Image: "web"})
	n.assign(false, box("t2"))
	n.untilState("t2", swarm.TaskStateRunning)
	n.alone.drop(boxID)
	n.unassign(box("t2"))
	n.untilGone("t2")
	if _, err := n.runtime.Get(t.Context(), boxID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("removed, and still there: %v", err)
	}
}

// What the node does not know, or what is to run as another task, is refused.
func TestStandaloneUnknown(t *testing.T) {
	n := newNode(t)
	n.alone.set(boxID, "other", swarm.ContainerSpec{Image: "web"})
	n.assign(true, box("t1"))
	n.untilState("t1", swarm.TaskStateRejected)
	n.until("the container's owner is told", func() bool {
		n.alone.mu.Lock()
		defer n.alone.mu.Unlock()
		return slices.Contains(n.alone.moved["t1"], swarm.TaskStateRejected)
	})
	if _, err := n.runtime.Get(t.Context(), boxID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a container was made: %v", err)
	}
}
