package engineapi

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/node/runtime"
)

const (
	goOS   = goruntime.GOOS
	goArch = goruntime.GOARCH
)

const defaultStopGrace = 10 * time.Second

func (a *API) listContainers(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	filters, err := wire.ParseFilters(r, "ancestor", "exited", "health", "id", "is-task", "label", "name", "status")
	if err != nil {
		return err
	}
	list, err := a.containers(r.Context())
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(x, y runtime.Status) int { return y.CreatedAt.Compare(x.CreatedAt) })
	limit, err := number(r, "limit")
	if err != nil {
		return err
	}
	out := []container.Summary{}
	for _, c := range list {
		all := wire.Bool(r, "all") || limit > 0 || filters.Has("status") || filters.Has("exited")
		if !all && c.State != runtime.Running || !containerMatches(filters, c) || filters.Has("health") && !filters.Exact("health", string(a.health(c).Status)) {
			continue
		}
		if limit > 0 && len(out) == limit {
			break
		}
		out = append(out, a.summary(c))
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func number(r *http.Request, name string) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, api.Errorf(api.Invalid, "%s=%q is not a number", name, text)
	}
	return n, nil
}

func containerMatches(f wire.Filters, c runtime.Status) bool {
	task := c.Labels["com.docker.swarm.task.id"] != ""
	return f.Prefix("id", c.ID) && f.Contains("name", "/"+c.Name) && f.Labels("label", c.Labels) &&
		f.Exact("status", string(c.State)) &&
		(!f.Has("exited") || c.State == runtime.Exited && f.Exact("exited", strconv.Itoa(c.ExitCode))) &&
		(!f.Has("is-task") || f.Exact("is-task", strconv.FormatBool(task))) &&
		(!f.Has("ancestor") || slices.ContainsFunc(f["ancestor"], func(n string) bool { return familiar(n) == familiar(c.Image) }))
}

func (a *API) summary(c runtime.Status) container.Summary {
	s := container.Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Image: familiar(c.Image), Created: c.CreatedAt.Unix(),
		Labels: c.Labels, State: container.ContainerState(c.State), Status: a.phrase(c),
		Ports: a.ports(c), Mounts: []container.MountPoint{},
		NetworkSettings: &container.NetworkSettingsSummary{},
	}
	s.HostConfig.NetworkMode = string(a.networkMode(c))
	a.describeOwn(&s)
	if h := a.health(c); h.Status != container.NoHealthcheck {
		s.Health = &container.HealthSummary{Status: h.Status, FailingStreak: h.FailingStreak}
	}
	return s
}

// ports are those of the host that lead to the container while it runs.
func (a *API) ports(c runtime.Status) []container.PortSummary {
	out := []container.PortSummary{}
	id := c.Labels["com.docker.swarm.task.id"]
	if a.cfg.Ports == nil || id == "" || c.State != runtime.Running {
		return out
	}
	for _, p := range a.cfg.Ports(id) {
		out = append(out, container.PortSummary{
			IP: netip.IPv4Unspecified(), PrivatePort: uint16(p.TargetPort), PublicPort: uint16(p.PublishedPort), Type: string(p.Protocol),
		})
	}
	return out
}

// networkMode is how the container is networked, as far as Docker has a word for it.
func (a *API) networkMode(c runtime.Status) container.NetworkMode {
	id := c.Labels["com.docker.swarm.task.id"]
	if a.cfg.NetworkMode == nil || id == "" {
		return network.NetworkDefault
	}
	return container.NetworkMode(cmp.Or(a.cfg.NetworkMode(id), network.NetworkDefault))
}

// phrase is the status column of docker ps.
func (a *API) phrase(c runtime.Status) string {
	switch c.State {
	case runtime.Running:
		return "Up " + ago(a.cfg.Now().Sub(c.StartedAt)) + healthPhrase(a.health(c).Status)
	case runtime.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", c.ExitCode, ago(a.cfg.Now().Sub(c.FinishedAt)))
	}
	return "Created"
}

// health is how a container is by its task's health check; what does not run is
// not examined.
func (a *API) health(c runtime.Status) container.Health {
	if id := c.Labels["com.docker.swarm.task.id"]; a.cfg.Health != nil && id != "" && c.State == runtime.Running {
		if h := a.cfg.Health(id); h != nil {
			return *h
		}
	}
	return container.Health{Status: container.NoHealthcheck}
}

func healthPhrase(s container.HealthStatus) string {
	switch s {
	case container.Starting:
		return " (health: starting)"
	case container.Healthy, container.Unhealthy:
		return " (" + string(s) + ")"
	}
	return ""
}

func ago(d time.Duration) string {
	unit := func(n int, word string) string {
		if n == 1 {
			return "1 " + word
		}
		return fmt.Sprintf("%d %ss", n, word)
	}
	switch {
	case d < time.Second:
		return "Less than a second"
	case d < time.Minute:
		return unit(int(d.Seconds()), "second")
	case d < time.Hour:
		return unit(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return unit(int(d.Hours()), "hour")
	}
	return unit(int(d.Hours()/24), "day")
}

// find looks a container up by id, name or unique prefix of the id.
func (a *API) find(ctx context.Context, ref string) (runtime.Status, error) {
	list, err := a.containers(ctx)
	if err != nil {
		return runtime.Status{}, err
	}
	var found []runtime.Status
	for _, c := range list {
		if c.ID == ref || c.Name == strings.TrimPrefix(ref, "/") {
			return c, nil
		}
		if ref != "" && strings.HasPrefix(c.ID, ref) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return runtime.Status{}, api.Errorf(api.NotFound, "No such container: %s", ref)
	case 1:
		return found[0], nil
	}
	return runtime.Status{}, api.Errorf(api.Invalid, "container %s is ambiguous (%d matches found)", ref, len(found))
}

func (a *API) inspectContainer(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	c, err := a.find(r.Context(), vars["id"])
	if err != nil {
		return err
	}
	var health *container.Health
	if h := a.health(c); h.Status != container.NoHealthcheck {
		health = &h
	}
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	out := container.InspectResponse{
		ID: c.ID, Name: "/" + c.Name, Created: stamp(c.CreatedAt), Image: c.Image, LogPath: c.LogPath,
		State: &container.State{
			Status: container.ContainerState(c.State), Running: c.State == runtime.Running, Pid: c.PID, ExitCode: c.ExitCode,
			OOMKilled: c.OOMKilled, Health: health, StartedAt: stamp(c.StartedAt), FinishedAt: stamp(c.FinishedAt),
		},
		Driver: "overlayfs", Platform: goOS, Mounts: []container.MountPoint{}, HostConfig: &container.HostConfig{NetworkMode: a.networkMode(c)},
		Config:          &container.Config{Image: familiar(c.Image), Labels: c.Labels},
		NetworkSettings: &container.NetworkSettings{},
	}
	a.inspectOwn(&out)
	return wire.WriteJSON(w, http.StatusOK, out)
}

func (a *API) killContainer(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	c, err := a.find(r.Context(), vars["id"])
	if err != nil {
		return err
	}
	if c.State != runtime.Running {
		return api.Errorf(api.Conflict, "cannot kill container: %s: container %s is not running", vars["id"], c.ID)
	}
	signal := r.URL.Query().Get("signal")
	if signal == "" {
		signal = "SIGKILL"
	}
	if err := a.cfg.Runtime.Kill(r.Context(), c.ID, signal); err != nil {
		return kinded(err)
	}
	a.emit(events.ContainerEventType, events.ActionKill, c.ID, map[string]string{"name": c.Name, "signal": signal})
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) stopContainer(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	c, err := a.find(r.Context(), vars["id"])
	if err != nil {
		return err
	}
	if c.State != runtime.Running {
		return wire.Statusf(http.StatusNotModified, "container %s is already stopped", c.ID)
	}
	grace, err := a.stopGrace(r, c.ID)
	if err != nil {
		return err
	}
	if err := a.cfg.Runtime.Stop(r.Context(), c.ID, grace); err != nil {
		return kinded(err)
	}
	a.emit(events.ContainerEventType, events.ActionStop, c.ID, map[string]string{"name": c.Name})
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// stopGrace is how long the client lets a container take to end, or else whoever
// made it.
func (a *API) stopGrace(r *http.Request, id string) (time.Duration, error) {
	grace := defaultStopGrace
	if record, ours := a.record(id); ours && record.Wish.Spec.StopGracePeriod != nil {
		grace = *record.Wish.Spec.StopGracePeriod
	}
	seconds, err := number(r, "t")
	if err != nil {
		return 0, err
	}
	if r.URL.Query().Has("t") {
		grace = time.Duration(seconds) * time.Second
	}
	if grace < 0 { // the client waits as long as it takes
		grace = math.MaxInt64
	}
	return grace, nil
}
