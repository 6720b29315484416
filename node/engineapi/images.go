package engineapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/node/runtime"
)

// familiar is a name as people write it: docker.io/library/busybox:1 is busybox:1.
func familiar(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(ref)
}

func (a *API) listImages(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	filters, err := wire.ParseFilters(r, "reference", "dangling", "label")
	if err != nil {
		return err
	}
	dangling, _, err := filters.Bool("dangling")
	if err != nil {
		return err
	}
	images, err := a.cfg.Runtime.Images(r.Context())
	if err != nil {
		return err
	}
	slices.SortFunc(images, func(x, y runtime.Image) int {
		return cmp.Or(y.Created.Compare(x.Created), cmp.Compare(x.Name, y.Name))
	})
	byID := map[string]*image.Summary{}
	out := []*image.Summary{}
	for _, i := range images {
		if dangling { // every image here has a name
			break
		}
		if !referenceMatches(filters["reference"], i.Name) || !filters.Labels("label", i.Labels) {
			continue
		}
		s := byID[i.ID]
		if s == nil {
			s = &image.Summary{ID: i.ID, Created: i.Created.Unix(), Size: i.Size, SharedSize: -1, Containers: -1, Labels: i.Labels, RepoTags: []string{}, RepoDigests: []string{}}
			byID[i.ID] = s
			out = append(out, s)
		}
		addNames(s, i)
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

// names are all the names that an image has here.
func (a *API) names(ctx context.Context, i runtime.Image) (image.Summary, error) {
	s := image.Summary{RepoTags: []string{}, RepoDigests: []string{}}
	images, err := a.cfg.Runtime.Images(ctx)
	if err != nil {
		return s, err
	}
	slices.SortFunc(images, func(x, y runtime.Image) int { return cmp.Compare(x.Name, y.Name) })
	for _, other := range images {
		if other.ID == i.ID {
			addNames(&s, other)
		}
	}
	return s, nil
}

func addNames(s *image.Summary, i runtime.Image) {
	name := familiar(i.Name)
	if !strings.Contains(name, "@") {
		s.RepoTags = append(s.RepoTags, name)
	}
	if ref, err := reference.ParseNormalizedNamed(i.Name); err == nil && i.Digest != "" {
		if digest := reference.FamiliarName(ref) + "@" + i.Digest; !slices.Contains(s.RepoDigests, digest) {
			s.RepoDigests = append(s.RepoDigests, digest)
		}
	}
}

// referenceMatches applies the reference filter: a glob over the familiar name.
func referenceMatches(patterns []string, name string) bool {
	if len(patterns) == 0 {
		return true
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return false
	}
	for _, p := range patterns {
		if ok, err := reference.FamiliarMatch(p, ref); err == nil && ok {
			return true
		}
	}
	return false
}

func (a *API) inspectImage(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	i, err := a.cfg.Runtime.Image(r.Context(), vars["name"])
	if err != nil {
		return kinded(err)
	}
	cfg := dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{
		User: i.User, Env: i.Env, Entrypoint: i.Entrypoint, Cmd: i.Cmd, WorkingDir: i.WorkingDir, Labels: i.Labels, StopSignal: i.StopSignal,
	}}
	if len(i.ExposedPorts) > 0 {
		cfg.ExposedPorts = map[string]struct{}{}
		for _, p := range i.ExposedPorts {
			cfg.ExposedPorts[p] = struct{}{}
		}
	}
	s, err := a.names(r.Context(), i)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, image.InspectResponse{
		ID: i.ID, RepoTags: s.RepoTags, RepoDigests: s.RepoDigests, Created: i.Created.Format(time.RFC3339Nano),
		Config: &cfg, Architecture: goArch, Os: goOS, Size: i.Size, RootFS: image.RootFS{Type: "layers"},
	})
}

func (a *API) loadImage(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	names, err := a.cfg.Runtime.Load(r.Context(), r.Body)
	if err != nil {
		return api.Errorf(api.Invalid, "load images: %w", err)
	}
	stream, err := wire.NewJSONStream(w)
	if err != nil {
		return err
	}
	for _, name := range names {
		what := "Loaded image: "
		if strings.HasPrefix(name, "sha256:") {
			what = "Loaded image ID: "
		}
		a.emit(events.ImageEventType, events.ActionLoad, name, map[string]string{"name": name})
		if err := stream.Send(map[string]string{"stream": what + name + "\n"}); err != nil {
			return nil // the client has gone; the image is here
		}
	}
	return nil
}

func (a *API) pullImage(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	q := r.URL.Query()
	ref := q.Get("fromImage")
	if ref == "" {
		return api.Errorf(api.Unimplemented, "importing a file system as an image is not part of Shoal; use docker load")
	}
	if tag := q.Get("tag"); strings.HasPrefix(tag, "sha256:") {
		ref += "@" + tag
	} else if tag != "" {
		ref += ":" + tag
	}
	stream := &progress{w: w}
	i, err := a.cfg.Runtime.Pull(r.Context(), ref, r.Header.Get("X-Registry-Auth"), stream)
	if err == nil {
		a.emit(events.ImageEventType, events.ActionPull, familiar(i.Name), map[string]string{"name": familiar(i.Name)})
		return nil
	}
	if !stream.began {
		return kinded(err)
	}
	line, jsonErr := json.Marshal(map[string]any{"error": err.Error(), "errorDetail": map[string]string{"message": err.Error()}})
	_, writeErr := stream.Write(append(line, '\n'))
	return errors.Join(jsonErr, writeErr)
}

// progress passes a pull's progress lines on as they come.
type progress struct {
	w     http.ResponseWriter
	began bool
}

func (p *progress) Write(b []byte) (int, error) {
	if !p.began {
		p.began = true
		p.w.Header().Set("Content-Type", "application/json")
		p.w.WriteHeader(http.StatusOK)
	}
	n, err := p.w.Write(b)
	if err == nil {
		err = http.NewResponseController(p.w).Flush()
	}
	return n, err
}

func (a *API) tagImage(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	name := r.URL.Query().Get("repo")
	if tag := r.URL.Query().Get("tag"); tag != "" {
		name += ":" + tag
	}
	if err := a.cfg.Runtime.Tag(r.Context(), vars["name"], name); err != nil {
		return kinded(err)
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (a *API) removeImage(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	i, err := a.cfg.Runtime.Image(r.Context(), vars["name"])
	if err != nil {
		return kinded(err)
	}
	if err := a.cfg.Runtime.RemoveImage(r.Context(), vars["name"]); err != nil {
		return kinded(err)
	}
	a.emit(events.ImageEventType, events.ActionDelete, i.ID, map[string]string{"name": familiar(i.Name)})
	return wire.WriteJSON(w, http.StatusOK, []image.DeleteResponse{{Untagged: familiar(i.Name)}})
}

// distribution is asked by clients that want to pin a service to the digest its
// image has now. Refusing at once makes them go on with the name alone.
func (a *API) distribution(_ http.ResponseWriter, _ *http.Request, vars map[string]string) error {
	return api.Errorf(api.NotFound, "the registry of %s is not asked: every node uses the image it has, or pulls it", vars["name"])
}

// kinded gives an error of the runtime the kind that the API answers with.
func kinded(err error) error {
	switch {
	case errdefs.IsNotFound(err):
		return api.Errorf(api.NotFound, "%w", err)
	case errdefs.IsConflict(err), errdefs.IsAlreadyExists(err), errdefs.IsFailedPrecondition(err):
		return api.Errorf(api.Conflict, "%w", err)
	case errdefs.IsInvalidArgument(err):
		return api.Errorf(api.Invalid, "%w", err)
	case errdefs.IsUnavailable(err):
		return api.Errorf(api.Unavailable, "%w", err)
	}
	return fmt.Errorf("%w", err)
}
