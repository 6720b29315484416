package standalone

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/swarm"

	"shoal/node/runtime"
)

// Wish is a container as somebody asks for it.
type Wish struct {
	Name     string // "" for one that is made up
	Spec     swarm.ContainerSpec
	Limits   *swarm.ResourceRequirements
	Networks []swarm.NetworkAttachmentConfig
	// AutoRemove: it is removed when it has ended. StdinOnce: its input ends with
	// the first client that gave some.
	AutoRemove, StdinOnce bool
	// Config and Host are what the client sent, for those who inspect.
	Config *container.Config
	Host   *container.HostConfig
}

// Record is what the node remembers of a container.
type Record struct {
	ID, Name  string
	CreatedAt time.Time
	Wish      Wish
	// Command is the whole of what it runs, with what the image says.
	Command []string
	// NetworkNames are the names of the wish's networks, in their order.
	NetworkNames []string
	// TaskID is the task that stands for it among the managers, "" before its first
	// start. Wanted says that the container is to run as that.
	TaskID string `json:",omitempty"`
	Wanted bool   `json:",omitempty"`
	// Attachments are the addresses that it has or had last.
	Attachments []swarm.NetworkAttachment `json:",omitempty"`
}

const recordFile = "container.json"

func (s *Store) dir(id string) string { return filepath.Join(s.cfg.Dir, id) }

// save replaces the record in one step.
func (s *Store) save(r *Record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record of container %s: %w", r.ID, err)
	}
	path := filepath.Join(s.dir(r.ID), recordFile)
	err = os.MkdirAll(s.dir(r.ID), 0o700)
	if err == nil {
		err = os.WriteFile(path+".new", raw, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("record of container %s: %w", r.ID, err)
	}
	return nil
}

// load reads every record. A directory without a whole one was cut short and is
// taken away.
func (s *Store) load() error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list the containers: %w", err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(s.dir(e.Name()), recordFile))
		r := &Record{}
		if err == nil {
			err = json.Unmarshal(raw, r)
		}
		if err == nil && (r.ID != e.Name() || !runtime.ValidID(r.ID)) {
			err = fmt.Errorf("it is of the container %q", r.ID)
		}
		if err == nil {
			s.entries[r.ID] = newEntry(r)
			continue
		}
		s.cfg.Logger.Error("container is lost", "container", e.Name(), "error", err)
		if err := os.RemoveAll(s.dir(e.Name())); err != nil {
			return fmt.Errorf("remove a damaged container: %w", err)
		}
	}
	return nil
}
