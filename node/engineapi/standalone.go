package engineapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/node/runtime"
	"shoal/node/standalone"
)

func (a *API) mountStandalone(rt *wire.Router) {
	rt.Handle(http.MethodPost, "/containers/create", a.createContainer)
	rt.Handle(http.MethodPost, "/containers/{id}/start", a.startContainer)
	rt.Handle(http.MethodPost, "/containers/{id}/restart", a.restartContainer)
	rt.Handle(http.MethodPost, "/containers/{id}/wait", a.waitContainer)
	rt.Handle(http.MethodPost, "/containers/{id}/attach", a.attachContainer)
	rt.Handle(http.MethodPost, "/containers/{id}/resize", a.resizeContainer)
	rt.Handle(http.MethodDelete, "/containers/{id}", a.removeContainer)
}

// containers are those of the runtime and those that have never been started.
func (a *API) containers(ctx context.Context) ([]runtime.Status, error) {
	list, err := a.cfg.Runtime.List(ctx)
	if err != nil || a.cfg.Standalone == nil {
		return list, err
	}
	unmade, err := a.cfg.Standalone.List(ctx)
	return append(list, unmade...), err
}

// own finds a container that is no service's.
func (a *API) own(ctx context.Context, ref, what string) (runtime.Status, error) {
	c, err := a.find(ctx, ref)
	if err != nil {
		return c, err
	}
	if _, ours := a.record(c.ID); !ours {
		return c, api.Errorf(api.Conflict, "container %s belongs to task %s of service %s and cannot be %s: change the service",
			c.Name, c.Labels["com.docker.swarm.task.id"], c.Labels["com.docker.swarm.service.name"], what)
	}
	return c, nil
}

func (a *API) record(id string) (standalone.Record, bool) {
	if a.cfg.Standalone == nil {
		return standalone.Record{}, false
	}
	return a.cfg.Standalone.Get(id)
}

func (a *API) createContainer(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var req container.CreateRequest
	if err := wire.ReadJSON(r, &req); err != nil {
		return err
	}
	wish, err := wishOf(r.URL.Query().Get("name"), req)
	if err != nil {
		return err
	}
	id, err := a.cfg.Standalone.Create(r.Context(), wish)
	if err != nil {
		return kinded(err)
	}
	return wire.WriteJSON(w, http.StatusCreated, container.CreateResponse{ID: id, Warnings: []string{}})
}

func (a *API) startContainer(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	c, err := a.own(r.Context(), vars["id"], "started")
	if err != nil {
		return err
	}
	err = a.cfg.Standalone.Start(r.Context(), c.ID)
	if standalone.AlreadyRuns(err) {
		return wire.Statusf(http.StatusNotModified, "container %s is already started", c.ID)
	}
	if err != nil {
		return kinded(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) restartContainer(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	c, err := a.own(r.Context(), vars["id"], "restarted")
	if err != nil {
		return err
	}
	if record, _ := a.record(c.ID); record.Wish.AutoRemove {
		return api.Errorf(api.Conflict, "container %s is removed when it ends and cannot be restarted", c.Name)
	}
	grace, err := a.stopGrace(r, c.ID)
	if err != nil {
		return err
	}
	if err := a.cfg.Runtime.Stop(r.Context(), c.ID, grace); err != nil && api.KindOf(err) != api.NotFound {
		return kinded(err)
	}
	if err := a.cfg.Standalone.Start(r.Context(), c.ID); err != nil {
		return kinded(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) removeContainer(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	c, err := a.own(r.Context(), vars["id"], "removed")
	if err != nil {
		return err
	}
	if wire.Bool(r, "link") {
		return api.Errorf(api.Invalid, "containers have no links")
	}
	if err := a.cfg.Standalone.Remove(r.Context(), c.ID, wire.Bool(r, "force"), wire.Bool(r, "v")); err != nil {
		return kinded(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// waitContainer answers at once that it waits, and then with the exit code. One
// whose client leaves before a container that is to be removed was ever started was
// the one to start it: nobody else will.
func (a *API) waitContainer(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	c, err := a.find(r.Context(), vars["id"])
	if err != nil {
		return err
	}
	until, err := untilOf(r.URL.Query().Get("condition"))
	if err != nil {
		return err
	}
	wait := func(ctx context.Context) (int, error) { // for the container of a task
		st, err := a.cfg.Runtime.Wait(ctx, c.ID)
		return st.ExitCode, err
	}
	if _, ours := a.record(c.ID); ours {
		if wait, err = a.cfg.Standalone.Wait(c.ID, until); err != nil {
			return err
		}
	}
	stream, err := wire.NewJSONStream(w)
	if err != nil {
		return nil //nolint:nilerr // the client has gone
	}
	code, err := wait(r.Context())
	if r.Context().Err() != nil {
		return a.abandoned(c.ID)
	}
	answer := container.WaitResponse{StatusCode: int64(code)}
	if err != nil {
		answer.Error = &container.WaitExitError{Message: err.Error()}
	}
	return stream.Send(answer)
}

func (a *API) abandoned(id string) error {
	if _, ours := a.record(id); !ours {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), abandonPatience)
	defer cancel()
	return a.cfg.Standalone.Abandon(ctx, id)
}

// abandonPatience bounds the removal of what nobody will start.
const abandonPatience = 30 * time.Second

func untilOf(condition string) (standalone.Until, error) {
	switch until := standalone.Until(condition); until {
	case "":
		return standalone.NotRunning, nil
	case standalone.NotRunning, standalone.NextExit, standalone.Removed:
		return until, nil
	}
	return "", api.Errorf(api.Invalid, "invalid condition: %q", condition)
}

func (a *API) resizeContainer(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	c, err := a.find(r.Context(), vars["id"])
	if err != nil {
		return err
	}
	height, errH := strconv.ParseUint(r.URL.Query().Get("h"), 10, 16)
	width, errW := strconv.ParseUint(r.URL.Query().Get("w"), 10, 16)
	if errH != nil || errW != nil {
		return api.Errorf(api.Invalid, "h=%q and w=%q are not the size of a terminal", r.URL.Query().Get("h"), r.URL.Query().Get("w"))
	}
	if err := a.cfg.Runtime.Resize(r.Context(), c.ID, uint32(width), uint32(height)); err != nil {
		return kinded(err)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
