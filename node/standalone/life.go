package standalone

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/agent"
	"shoal/node/runtime"
)

var _ agent.Standalone = (*Store)(nil)

const (
	// startPatience bounds a start: addresses from the managers, and the container.
	startPatience = time.Minute
	// tidyPatience bounds what is done once nobody waits for it.
	tidyPatience = 30 * time.Second
)

// Start runs a container that does not run, and returns when it does. It goes on
// when the client leaves. One that cannot be started leaves nothing among the
// managers, and is removed if it was to be when it ends.
func (s *Store) Start(ctx context.Context, id string) error {
	e, err := s.find(id)
	if err != nil {
		return err
	}
	e.act.Lock()
	defer e.act.Unlock()
	if st, err := s.cfg.Runtime.Get(ctx, id); err == nil && st.State == runtime.Running {
		return errAlreadyRuns
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startPatience)
	defer cancel()
	if err = s.start(ctx, e); err != nil {
		last, cancel := context.WithTimeout(context.Background(), tidyPatience)
		defer cancel()
		return errors.Join(err, s.giveUp(last, e))
	}
	r := s.record(e)
	s.emit(events.ActionStart, &r, nil)
	s.wg.Go(func() { s.follow(e) })
	return nil
}

// errAlreadyRuns is the error of Start for a container that runs.
var errAlreadyRuns = errors.New("the container runs already")

// AlreadyRuns says whether a Start found that the container runs.
func AlreadyRuns(err error) bool { return errors.Is(err, errAlreadyRuns) }

// start asks the managers for a place and waits for the agent.
func (s *Store) start(ctx context.Context, e *entry) error {
	cluster := s.cfg.Cluster()
	if cluster == nil {
		return api.Errorf(api.Unavailable, "this node is in no swarm: nobody gives the container a place on its networks")
	}
	taskID := api.NewID()
	err := s.change(e, func(r *Record) { r.TaskID, r.Wanted, r.Attachments = taskID, true, nil })
	if err != nil {
		return err
	}
	s.mu.Lock()
	e.status = swarm.TaskStatus{}
	r := e.record
	s.mu.Unlock()
	_, err = cluster.Attach(ctx, api.AttachRequest{TaskID: taskID, ContainerID: r.ID, Name: r.Name, Networks: r.Wish.Networks})
	if err != nil {
		return err
	}
	return s.awaitStart(ctx, e)
}

// awaitStart returns when the container runs or has run, or why it does not.
func (s *Store) awaitStart(ctx context.Context, e *entry) error {
	for {
		s.mu.Lock()
		news, status := e.news, e.status
		s.mu.Unlock()
		if status.State == swarm.TaskStateRunning {
			return nil
		}
		if api.Terminal(status.State) {
			st, err := s.cfg.Runtime.Get(ctx, e.id)
			if err == nil && !st.StartedAt.IsZero() && st.State == runtime.Exited {
				return nil
			}
			return api.Errorf(api.Invalid, "%s", status.Err)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return api.Errorf(api.Unavailable, "the container did not start within %s: %s", startPatience, status.Err)
		}
	}
}

// giveUp takes back what a start that failed has made.
func (s *Store) giveUp(ctx context.Context, e *entry) error {
	errs := []error{s.change(e, func(r *Record) { r.Wanted = false })}
	s.mu.Lock()
	e.letGo()
	s.mu.Unlock()
	r := s.record(e)
	if cluster := s.cfg.Cluster(); cluster != nil && r.TaskID != "" {
		if err := cluster.Detach(ctx, r.TaskID); err != nil {
			// The agent refuses the task when it comes, which ends it too.
			s.cfg.Logger.Warn("the managers still have a container that did not start", "container", e.id, "error", err)
		}
	}
	if r.Wish.AutoRemove {
		errs = append(errs, s.remove(ctx, e, true))
	}
	return errors.Join(errs...)
}

// follow waits for the end of a container that runs, notes it, and removes the
// container if it is to go.
func (s *Store) follow(e *entry) {
	st, err := s.cfg.Runtime.Wait(s.ctx, e.id)
	if s.ctx.Err() != nil {
		return
	}
	if err == nil {
		s.noteEnd(e, st.ExitCode)
	}
	if err := s.change(e, func(r *Record) { r.Wanted = false }); err != nil && api.KindOf(err) != api.NotFound {
		s.cfg.Logger.Error("the end of a container is not on disk", "container", e.id, "error", err)
	}
	if !s.record(e).Wish.AutoRemove {
		return
	}
	e.act.Lock()
	defer e.act.Unlock()
	ctx, cancel := context.WithTimeout(s.ctx, tidyPatience)
	defer cancel()
	if err := s.remove(ctx, e, true); err != nil {
		s.cfg.Logger.Error("a container that has ended stays", "container", e.id, "error", err)
	}
}

func (s *Store) noteEnd(e *entry, code int) {
	s.mu.Lock()
	e.ends++
	e.code = code
	e.tell()
	r := e.record
	s.mu.Unlock()
	s.emit(events.ActionDie, &r, map[string]string{"exitCode": strconv.Itoa(code)})
}

// Remove removes a container; one that runs only with force. Volumes says that
// those it has without a name go too.
func (s *Store) Remove(ctx context.Context, id string, force, volumes bool) error {
	e, err := s.find(id)
	if err != nil {
		return err
	}
	e.act.Lock()
	defer e.act.Unlock()
	st, err := s.cfg.Runtime.Get(ctx, id)
	if err == nil && st.State == runtime.Running && !force {
		return api.Errorf(api.Conflict, "cannot remove container \"/%s\": container is running: stop the container before removing or force remove", s.record(e).Name)
	}
	return s.remove(ctx, e, volumes)
}

// remove is called with act held. Removing twice is fine.
func (s *Store) remove(ctx context.Context, e *entry, volumes bool) error {
	id := e.id
	if err := s.cfg.Runtime.Remove(ctx, id); err != nil {
		return err
	}
	s.mu.Lock()
	again := e.removed
	e.removed = true
	delete(s.entries, id)
	e.letGo()
	s.mu.Unlock()
	if again {
		return nil
	}
	errs := []error{os.RemoveAll(s.dir(id))}
	if volumes {
		for _, path := range s.anonymous(id) {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	s.mu.Lock()
	e.gone = true
	e.tell()
	r := e.record
	s.mu.Unlock()
	s.emit(events.ActionDestroy, &r, nil)
	return errors.Join(errs...)
}

// Clear removes all containers: the node leaves the swarm, and with it their
// networks.
func (s *Store) Clear(ctx context.Context) error {
	s.mu.Lock()
	ids := make([]string, 0, len(s.entries))
	for id := range s.entries {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	var errs []error
	for _, id := range ids {
		if err := s.Remove(ctx, id, true, false); api.KindOf(err) != api.NotFound {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Until is what somebody waits for.
type Until string

// What can be waited for.
const (
	NotRunning Until = "not-running"
	NextExit   Until = "next-exit"
	Removed    Until = "removed"
)

// Wait begins to wait at once, and returns what waits on: it returns the exit code
// when the container has come that far.
func (s *Store) Wait(id string, until Until) (func(ctx context.Context) (int, error), error) {
	e, err := s.find(id)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	ends := e.ends
	s.mu.Unlock()
	return func(ctx context.Context) (int, error) {
		for {
			s.mu.Lock()
			news, now, code, removed := e.news, e.ends, e.code, e.gone
			s.mu.Unlock()
			st, err := s.cfg.Runtime.Get(ctx, id)
			switch {
			case removed, until == NextExit && now > ends:
				return code, nil
			case until == NotRunning && (err != nil || st.State != runtime.Running):
				return st.ExitCode, nil
			}
			select {
			case <-news:
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}, nil
}

// Abandon removes a container that is to be removed when it ends, and that has
// never been started: whoever was about to has left.
func (s *Store) Abandon(ctx context.Context, id string) error {
	e, err := s.find(id)
	if err != nil {
		return nil //nolint:nilerr // it is gone
	}
	e.act.Lock()
	defer e.act.Unlock()
	if r := s.record(e); !r.Wish.AutoRemove || r.TaskID != "" {
		return nil
	}
	return s.remove(ctx, e, true)
}

// Wish implements agent.Standalone.
func (s *Store) Wish(t *api.Task) (*swarm.ContainerSpec, *swarm.ResourceRequirements, bool) {
	at := t.Spec.NetworkAttachmentSpec
	if at == nil {
		return nil, nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[at.ContainerID]
	if e == nil || e.record.TaskID != t.ID || !e.record.Wanted {
		return nil, nil, false
	}
	e.record.Attachments = t.NetworksAttachments
	spec := e.record.Wish.Spec
	return &spec, e.record.Wish.Limits, true
}

// Owns implements agent.Standalone.
func (s *Store) Owns(containerID, taskID string) bool {
	r, known := s.Get(containerID)
	return !known || r.TaskID == taskID
}

// Keeps implements agent.Standalone.
func (s *Store) Keeps(containerID string) bool {
	_, known := s.Get(containerID)
	return known
}

// Moved implements agent.Standalone.
func (s *Store) Moved(taskID string, status swarm.TaskStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.record.TaskID == taskID {
			e.status = status
			e.tell()
		}
	}
}
