package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/join"
)

// roleTimeout bounds a change of role, as Docker's clients expect.
const roleTimeout = 16 * time.Second

// followRole makes the node what the managers say it is to be. One that is
// demoted waits until it is out of the Raft group: leaving before would cost the
// others a vote.
func (m *member) followRole(self *api.Node) {
	if self == nil || self.Spec.Role == m.state.Role {
		return
	}
	if self.Spec.Role == swarm.NodeRoleWorker && self.ManagerStatus != nil {
		return
	}
	if !m.turning.CompareAndSwap(false, true) {
		return
	}
	go func() { // the member cannot end itself from one of its own loops
		if err := m.d.changeRole(m, self.Spec.Role); err != nil {
			m.d.cfg.Logger.Error("the node does not have the role it was given", "role", self.Spec.Role, "error", err)
			m.turning.Store(false)
		}
	}()
}

// changeRole ends the member and starts it anew with a certificate for the role.
// Its tasks do not notice.
func (d *Daemon) changeRole(m *member, role swarm.NodeRole) error {
	ctx, cancel := context.WithTimeout(d.base, roleTimeout)
	defer cancel()
	creds, err := join.Renew(ctx, m.client, m.managers(), m.source.Current().RootPEM())
	if err != nil {
		return err
	}
	id, err := ca.IdentityOf(creds.Leaf)
	if err != nil {
		return err
	}
	if id.Role != role {
		return fmt.Errorf("the certificate is for a %s, not a %s", id.Role, role)
	}
	d.mu.Lock()
	if d.member != m || d.busy {
		d.mu.Unlock()
		return errors.New("the node is joining or leaving a swarm just now")
	}
	d.busy, d.member = true, nil
	d.mu.Unlock()
	next, err := d.become(ctx, m, creds, role)
	d.end(next)
	if err != nil {
		d.fail(fmt.Errorf("become %s: %w", role, err))
	}
	return nil
}

// become replaces the ended member by one of the role.
func (d *Daemon) become(ctx context.Context, old *member, creds *ca.Credentials, role swarm.NodeRole) (*member, error) {
	if err := old.close(); err != nil {
		d.cfg.Logger.Warn("the node did not leave its loops cleanly", "error", err)
	}
	if err := os.RemoveAll(d.path("raft")); err != nil { // of an earlier time as a manager
		return nil, err
	}
	state := *old.state
	state.Role = role
	if err := errors.Join(ca.SaveIdentity(d.path("certificates"), creds), d.saveMembership(&state)); err != nil {
		return nil, err
	}
	m, err := d.newMember(&state, creds)
	if err != nil {
		return nil, err
	}
	if m.manager != nil {
		if err := m.manager.JoinRaft(ctx, state.Managers); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	if err := m.run(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	d.cfg.Logger.Info("the node has changed its role", "role", role)
	return m, nil
}

// fail ends the daemon: whoever supervises it starts it again, with what is on disk.
func (d *Daemon) fail(err error) {
	select {
	case d.fatal <- err:
	default:
	}
}
