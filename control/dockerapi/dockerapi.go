package dockerapi

import (
	"context"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/store"
)

// API answers the routes of the cluster.
type API struct {
	cfg Config
	// none stands for the state of a node that has just ceased to be a manager.
	none *store.Store
}

// New returns the API; cfg must be complete.
func New(cfg Config) *API { return &API{cfg, store.New()} }

func (a *API) store() *store.Store {
	if s := a.cfg.Store(); s != nil {
		return s
	}
	return a.none
}

// Mount adds the routes of the cluster to a router. /_ping, /info, /version and
// /events belong to the node.
func (a *API) Mount(rt *wire.Router) {
	a.mountSwarm(rt)
	rt.Handle("GET", "/nodes", a.onManager(a.listNodes))
	rt.Handle("GET", "/nodes/{id}", a.onManager(a.inspectNode))
	rt.Handle("POST", "/nodes/{id}/update", a.onManager(a.updateNode))
	rt.Handle("DELETE", "/nodes/{id}", a.onManager(a.removeNode))
	rt.Handle("GET", "/services", a.onManager(a.listServices))
	rt.Handle("POST", "/services/create", a.onManager(a.createService))
	rt.Handle("GET", "/services/{id}", a.onManager(a.inspectService))
	rt.Handle("POST", "/services/{id}/update", a.onManager(a.updateService))
	rt.Handle("DELETE", "/services/{id}", a.onManager(a.removeService))
	rt.Handle("GET", "/tasks", a.onManager(a.listTasks))
	rt.Handle("GET", "/tasks/{id}", a.onManager(a.inspectTask))
	a.mountNetworks(rt)
	a.mountSecrets(rt, "secret", "names", "name", "id", "label")
	a.mountSecrets(rt, "config", "name", "id", "label")
}

// Texts of a node that cannot answer for the cluster.
const (
	textNoSwarm  = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
	textWorker   = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
	textLocked   = `Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.`
	textStarting = "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
	textNotPart  = "This node is not part of a swarm"
	textPart     = `This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.`
	textOldWrite = "rpc error: code = Unknown desc = update out of sequence"
)

// notManager says why the node cannot answer for the cluster; nil when it can.
func notManager(info swarm.Info) error {
	switch {
	case info.LocalNodeState == swarm.LocalNodeStateLocked:
		return api.Errorf(api.Unavailable, textLocked)
	case info.LocalNodeState == swarm.LocalNodeStateInactive, info.LocalNodeState == "":
		return api.Errorf(api.Unavailable, textNoSwarm)
	case info.LocalNodeState != swarm.LocalNodeStateActive:
		return api.Errorf(api.Unavailable, textStarting)
	case !info.ControlAvailable:
		return api.Errorf(api.Unavailable, textWorker)
	}
	return nil
}

// onManager lets a request through only on a manager.
func (a *API) onManager(h wire.Handler) wire.Handler {
	return func(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
		if err := notManager(a.cfg.Lifecycle.Info()); err != nil {
			return err
		}
		return h(w, r, vars)
	}
}

const (
	// changeTries bounds how often a change is built anew after others
	// changed the same object first.
	changeTries = 12
	// firstPause doubles with every try, up to lastPause: about 1.5 s in all.
	firstPause = 2 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// change builds operations from a fresh view and proposes them. When the view
// was behind (build or Propose answers OutOfSequence) it starts over, because
// planners write to the same objects as users.
func (a *API) change(ctx context.Context, build func(*store.View) ([]api.Op, error)) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := a.propose(ctx, build)
		if api.KindOf(err) != api.OutOfSequence {
			return err
		}
		if try == changeTries {
			return errOldWrite()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

func (a *API) propose(ctx context.Context, build func(*store.View) ([]api.Op, error)) error {
	ops, err := build(a.store().View())
	if err != nil {
		return err
	}
	err = a.cfg.Proposer.Propose(ctx, ops)
	if api.KindOf(err) == api.Conflict && predefines(ops) {
		return errOldWrite() // another manager made the same network known meanwhile
	}
	return err
}

func errOldWrite() error { return api.Errorf(api.OutOfSequence, textOldWrite) }

// staleWrite is errOldWrite for a write that no later view will make good.
func staleWrite() error { return api.Errorf(api.Internal, textOldWrite) }

// checkRead refuses a change by a user who read the object at a version before its
// spec last changed: that change would be lost. A version that is only older than the
// object's is good, because nodes report to it and planners write to it all the time.
// One from the future is waited for: the user may have read it from a manager that is
// ahead of this one.
func checkRead(read uint64, object, spec swarm.Version) error {
	switch {
	case read > object.Index:
		return errOldWrite()
	case read < spec.Index:
		return staleWrite()
	}
	return nil
}
