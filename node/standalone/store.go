// Package standalone owns the containers of a node that are no service's: those
// that somebody started there by hand, on attachable networks. It remembers what
// each is to run, across restarts of the node, asks the managers for its place on
// its networks, and removes it when it is to go. It never runs anything by itself:
// node/agent walks the task that stands for the container through its life.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/runtime"
)

// Cluster is who gives containers their places on networks.
type Cluster interface {
	// Attach makes the task that stands for a container, or, without a task's id,
	// looks whether the networks would take it.
	Attach(ctx context.Context, r api.AttachRequest) (api.AttachReply, error)
	// Detach takes a task back.
	Detach(ctx context.Context, taskID string) error
}

// Config of a Store; every field is needed.
type Config struct {
	// Dir has a directory for each container: its record, log and files for /etc.
	// VolumeDir holds the node's named volumes.
	Dir, VolumeDir string
	Runtime        runtime.Runtime
	// Cluster is nil on a node that is in no swarm.
	Cluster func() Cluster
	// Emit tells of what happened to a container.
	Emit   func(action events.Action, id string, attributes map[string]string)
	Now    func() time.Time
	Logger *slog.Logger
}

// Store has the containers. It is safe for concurrent use.
type Store struct {
	cfg Config
	ctx context.Context
	end context.CancelFunc
	wg  sync.WaitGroup

	mu      sync.Mutex
	entries map[string]*entry
}

// entry is a container in memory. mu of the store guards it, but for act, which
// orders what is done to the container.
type entry struct {
	id     string
	act    sync.Mutex
	record Record
	// status is the newest of the record's task; news is closed, and made anew,
	// with every change.
	status swarm.TaskStatus
	news   chan struct{}
	// ends counts how often the container has ended, code is how it did last.
	ends int
	code int
	// removed says that nothing is to be done to it any more, gone that nothing of it
	// is left.
	removed, gone bool
	// early are attached and wait for the container to be made.
	early []*early
}

func newEntry(r *Record) *entry { return &entry{id: r.ID, record: *r, news: make(chan struct{})} }

// Open returns a Store that knows the containers of an earlier run.
func Open(cfg Config) (*Store, error) {
	s := &Store{cfg: cfg, entries: map[string]*entry{}}
	s.ctx, s.end = context.WithCancel(context.Background())
	return s, s.load()
}

// Resume takes note of what has become of the containers of an earlier run.
func (s *Store) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.record.TaskID != "" && (e.record.Wanted || e.record.Wish.AutoRemove) {
			s.wg.Go(func() { s.follow(e) })
		}
	}
}

// Close ends the store; containers go on.
func (s *Store) Close() {
	s.end()
	s.wg.Wait()
}

// Create remembers a container, once its image is here and its networks would take
// it. Nothing of one that is refused stays.
func (s *Store) Create(ctx context.Context, w Wish) (string, error) {
	if w.Name == "" {
		w.Name = madeUp()
	} else if err := checkName(w.Name); err != nil {
		return "", err
	}
	image, err := s.cfg.Runtime.Image(ctx, w.Spec.Image)
	if err != nil {
		return "", err
	}
	reply, err := s.look(ctx, w.Networks)
	if err != nil {
		return "", err
	}
	r := &Record{ID: newID(), Name: w.Name, CreatedAt: s.cfg.Now(), Wish: w, Command: commandOf(w, image)}
	for i, n := range reply.Networks {
		r.Wish.Networks[i].Target = n.ID
		r.NetworkNames = append(r.NetworkNames, n.Name)
	}
	if err := s.add(ctx, r); err != nil {
		return "", err
	}
	s.emit(events.ActionCreate, r, nil)
	return r.ID, nil
}

// commandOf joins what is asked for with what the image says, as the runtime does.
func commandOf(w Wish, image runtime.Image) []string {
	entrypoint, args := image.Entrypoint, image.Cmd
	if len(w.Spec.Command) > 0 {
		entrypoint, args = w.Spec.Command, nil
	}
	if len(w.Spec.Args) > 0 {
		args = w.Spec.Args
	}
	return slices.Concat(entrypoint, args)
}

// look asks whether the networks would take a container. A network that is not
// there is no reason for a client to fetch the image, which is what it does when a
// container is refused with api.NotFound.
func (s *Store) look(ctx context.Context, networks []swarm.NetworkAttachmentConfig) (api.AttachReply, error) {
	cluster := s.cfg.Cluster()
	if cluster == nil {
		return api.AttachReply{}, api.Errorf(api.Unavailable, "containers run on attachable overlay networks only, and this node is in no swarm yet: docker swarm init or docker swarm join")
	}
	reply, err := cluster.Attach(ctx, api.AttachRequest{Networks: networks})
	if api.KindOf(err) == api.NotFound {
		err = api.Errorf(api.Invalid, "%w", err)
	}
	if err == nil && len(reply.Networks) != len(networks) {
		err = fmt.Errorf("asked about %d networks, told of %d", len(networks), len(reply.Networks))
	}
	return reply, err
}

// add enters a record whose name is free.
func (s *Store) add(ctx context.Context, r *Record) error {
	others, err := s.cfg.Runtime.List(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	owner := ""
	if i := slices.IndexFunc(others, func(o runtime.Status) bool { return o.Name == r.Name }); i >= 0 {
		owner = others[i].ID
	}
	for _, e := range s.entries {
		if e.record.Name == r.Name {
			owner = e.record.ID
		}
	}
	if owner != "" {
		return api.Errorf(api.Conflict, "Conflict. The container name \"/%s\" is already in use by container \"%s\". "+
			"You have to remove (or rename) that container to be able to reuse that name.", r.Name, owner)
	}
	if err := s.save(r); err != nil {
		return errors.Join(err, os.RemoveAll(s.dir(r.ID)))
	}
	s.entries[r.ID] = newEntry(r)
	return nil
}

// Get returns a container's record.
func (s *Store) Get(id string) (Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[id]; e != nil {
		return e.record, true
	}
	return Record{}, false
}

// List returns how every container is that the runtime does not have yet, and the
// ids of all.
func (s *Store) List(ctx context.Context) (unmade []runtime.Status, err error) {
	s.mu.Lock()
	records := make([]Record, 0, len(s.entries))
	for _, e := range s.entries {
		records = append(records, e.record)
	}
	s.mu.Unlock()
	for _, r := range records {
		if _, err := s.cfg.Runtime.Get(ctx, r.ID); api.KindOf(err) == api.NotFound {
			unmade = append(unmade, runtime.Status{
				ID: r.ID, Name: r.Name, Image: r.Wish.Spec.Image, Labels: r.Wish.Spec.Labels, State: runtime.Created,
				CreatedAt: r.CreatedAt, LogPath: filepath.Join(s.dir(r.ID), "log"),
			})
		}
	}
	return unmade, nil
}

func (s *Store) find(id string) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[id]; e != nil {
		return e, nil
	}
	return nil, runtime.NoSuchContainer(id)
}

func (s *Store) record(e *entry) Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.record
}

// change edits a record, on disk first.
func (s *Store) change(e *entry, edit func(*Record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := e.record
	edit(&next)
	if e.removed {
		return runtime.NoSuchContainer(next.ID)
	}
	if err := s.save(&next); err != nil {
		return err
	}
	e.record = next
	return nil
}

// tell wakes those who wait for a change; mu is held.
func (e *entry) tell() {
	close(e.news)
	e.news = make(chan struct{})
}

func (s *Store) emit(action events.Action, r *Record, more map[string]string) {
	attributes := map[string]string{"name": r.Name, "image": r.Wish.Spec.Image}
	for k, v := range r.Wish.Spec.Labels {
		attributes[k] = v
	}
	for k, v := range more {
		attributes[k] = v
	}
	s.cfg.Emit(action, r.ID, attributes)
}

// anonymous lists the volumes that the container mounts without a name.
func (s *Store) anonymous(id string) []string {
	entries, err := os.ReadDir(s.cfg.VolumeDir)
	if err != nil {
		return nil
	}
	var found []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), id) {
			found = append(found, filepath.Join(s.cfg.VolumeDir, e.Name()))
		}
	}
	return found
}
