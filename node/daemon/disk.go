package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/moby/api/types/swarm"
)

// membership is what a node must know to take its place in the cluster again.
type membership struct {
	NodeID string
	Role   swarm.NodeRole
	// ListenAddr and AdvertiseAddr are host:port of the control listener;
	// workers have no listener but keep the address.
	ListenAddr, AdvertiseAddr string
	DataPathAddr              string
	// Managers are control addresses to find the cluster at.
	Managers []string
	// Epoch counts the starts of this daemon, for the endpoint table.
	Epoch uint64
}

func (d *Daemon) path(parts ...string) string {
	return filepath.Join(append([]string{d.cfg.StateDir}, parts...)...)
}

const membershipFile = "membership.json"

// loadMembership returns nil for a node that is in no cluster.
func (d *Daemon) loadMembership() (*membership, error) {
	raw, err := os.ReadFile(d.path(membershipFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	m := new(membership)
	err = json.Unmarshal(raw, m)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return nil, fmt.Errorf("membership in %s: %w", d.path(membershipFile), err)
	}
	return m, nil
}

// check refuses what saveMembership cannot have written.
func (m *membership) check() error {
	if m.NodeID == "" || m.Role != swarm.NodeRoleManager && m.Role != swarm.NodeRoleWorker {
		return fmt.Errorf("it names no node (%q) or no role (%q)", m.NodeID, m.Role)
	}
	return nil
}

// saveMembership replaces the file in one step.
func (d *Daemon) saveMembership(m *membership) error {
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	tmp := d.path(membershipFile + ".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	return os.Rename(tmp, d.path(membershipFile))
}

// clusterPaths are all that belongs to a membership below the state directory.
var clusterPaths = []string{membershipFile, "certificates", "raft", "agent", "network"}

// forget removes everything of a membership; the membership file goes first, so
// that a crash in between leaves no half member.
func (d *Daemon) forget() error {
	var errs []error
	for _, p := range clusterPaths {
		errs = append(errs, os.RemoveAll(d.path(p)))
	}
	return errors.Join(errs...)
}
