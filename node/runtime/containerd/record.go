package containerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"shoal/node/runtime"
)

// record is what is kept on disk of a container: what was wished and how far it
// came. The task's exit is written here before containerd forgets it.
type record struct {
	Spec       runtime.Container
	ImageName  string
	StopSignal string
	State      runtime.State
	PID        int
	ExitCode   int
	OOMKilled  bool
	CreatedAt  time.Time
	StartedAt  time.Time
	FinishedAt time.Time
}

func (c *Config) recordPath(id string) string { return filepath.Join(c.recordDir(), id+".json") }

// save replaces the record as one step, so that a reader finds the old or the
// new one.
func (c *Config) save(rec *record) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode the record of container %s: %w", rec.Spec.ID, err)
	}
	path := c.recordPath(rec.Spec.ID)
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return fmt.Errorf("write the record of container %s: %w", rec.Spec.ID, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replace the record of container %s: %w", rec.Spec.ID, err)
	}
	return nil
}

func (c *Config) forget(id string) error {
	if err := os.Remove(c.recordPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the record of container %s: %w", id, err)
	}
	return nil
}

// records reads every record. One that cannot be understood was cut short by
// a crash of the machine: it is removed, and its container is swept as unknown.
func (c *Config) records() (map[string]*record, []error, error) {
	entries, err := os.ReadDir(c.recordDir())
	if err != nil {
		return nil, nil, fmt.Errorf("list the records: %w", err)
	}
	found := map[string]*record{}
	var damaged []error
	for _, entry := range entries {
		path := filepath.Join(c.recordDir(), entry.Name())
		id, whole := strings.CutSuffix(entry.Name(), ".json")
		rec, err := readRecord(path)
		if whole && err == nil && rec.Spec.ID == id {
			found[id] = rec
			continue
		}
		if whole {
			damaged = append(damaged, fmt.Errorf("record %s is damaged: %w", path, errors.Join(err)))
		}
		if err := os.Remove(path); err != nil {
			return nil, nil, fmt.Errorf("remove the damaged record: %w", err)
		}
	}
	return found, damaged, nil
}

func readRecord(path string) (*record, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read a record: %w", err)
	}
	return decodeRecord(raw)
}

func decodeRecord(raw []byte) (*record, error) {
	rec := new(record)
	if err := json.Unmarshal(raw, rec); err != nil {
		return nil, fmt.Errorf("decode a record: %w", err)
	}
	if !runtime.ValidID(rec.Spec.ID) {
		return nil, fmt.Errorf("record has the id %q", rec.Spec.ID)
	}
	switch rec.State {
	case runtime.Created, runtime.Running, runtime.Exited:
		return rec, nil
	}
	return nil, fmt.Errorf("record of %s has the state %q", rec.Spec.ID, rec.State)
}

func (rec *record) status() runtime.Status {
	return runtime.Status{
		ID: rec.Spec.ID, Name: rec.Spec.Name, Image: rec.Spec.Image, Labels: rec.Spec.Labels,
		State: rec.State, PID: rec.PID, ExitCode: rec.ExitCode, OOMKilled: rec.OOMKilled,
		CreatedAt: rec.CreatedAt, StartedAt: rec.StartedAt, FinishedAt: rec.FinishedAt,
		LogPath: rec.Spec.LogPath,
	}
}
