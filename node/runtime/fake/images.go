package fake

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	dockercontainer "github.com/moby/moby/api/types/container"

	"shoal/node/runtime"
	"shoal/node/runtime/logfile"
)

// AddImage makes an image present under the reference, with content of its own.
// A reference that does not parse panics: the test is wrong.
func (f *Runtime) AddImage(ref string, exposed ...string) runtime.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.add(ref)
	i.ExposedPorts = exposed
	f.images[i.Name] = i
	return i
}

func (f *Runtime) add(ref string) runtime.Image {
	name, err := runtime.NormalizeRef(ref)
	if err != nil {
		panic(err)
	}
	image := runtime.Image{
		Name: name, ID: digest("config " + name), Digest: digest("manifest " + name),
		Size: 1 << 20, Created: f.cfg.Now(), Entrypoint: []string{"/program"},
	}
	f.images[name] = image
	return image
}

func digest(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// image finds an image by name, digest or id; mu is held.
func (f *Runtime) image(ref string) (runtime.Image, error) {
	hex := strings.TrimPrefix(ref, "sha256:")
	for _, i := range f.images {
		if len(hex) >= 12 && strings.HasPrefix(i.ID, "sha256:"+hex) {
			return i, nil
		}
	}
	name, err := runtime.NormalizeRef(ref)
	if err != nil {
		return runtime.Image{}, err
	}
	if i, ok := f.images[name]; ok {
		return i, nil
	}
	for _, i := range f.images {
		if named, err := reference.ParseNormalizedNamed(i.Name); err == nil && named.Name()+"@"+i.Digest == name {
			return i, nil
		}
	}
	return runtime.Image{}, runtime.NoSuchImage(runtime.FamiliarRef(ref))
}

// EnsureImage finds the image here or pulls it.
func (f *Runtime) EnsureImage(ctx context.Context, ref, auth string) (runtime.Image, error) {
	f.mu.Lock()
	have, err := f.image(ref)
	f.mu.Unlock()
	if err == nil || errors.Is(err, context.Canceled) {
		return have, err
	}
	if _, bad := runtime.NormalizeRef(ref); bad != nil {
		return runtime.Image{}, bad
	}
	pulled, err := f.Pull(ctx, ref, auth, io.Discard)
	if err != nil {
		return runtime.Image{}, runtime.NotToBeHad(runtime.FamiliarRef(ref), err)
	}
	return pulled, nil
}

// Images returns every image that is present.
func (f *Runtime) Images(context.Context) ([]runtime.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.images)), nil
}

// Image returns one image that is present.
func (f *Runtime) Image(_ context.Context, ref string) (runtime.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.image(ref)
}

// RemoveImage takes a name away, unless it is the last one of an image that a
// container was made from.
func (f *Runtime) RemoveImage(_ context.Context, ref string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, err := f.image(ref)
	if err != nil {
		return err
	}
	names := 0
	for _, i := range f.images {
		if i.ID == found.ID {
			names++
		}
	}
	for id, c := range f.containers {
		if names == 1 && c.image == found.ID {
			return runtime.ImageInUse(runtime.FamiliarRef(ref), id)
		}
	}
	delete(f.images, found.Name)
	return nil
}

// Pull brings what Config.Registry lists.
func (f *Runtime) Pull(_ context.Context, ref, _ string, progress io.Writer) (runtime.Image, error) {
	name, err := runtime.NormalizeRef(ref)
	if err != nil {
		return runtime.Image{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, there := range f.cfg.Registry {
		if full, err := runtime.NormalizeRef(there); err == nil && full == name {
			image := f.add(name)
			_, err := fmt.Fprintf(progress, "{\"status\":\"Status: Downloaded newer image for %s\"}\n", runtime.FamiliarRef(name))
			return image, err
		}
	}
	return runtime.Image{}, runtime.PullDenied(strings.Split(runtime.FamiliarRef(name), ":")[0])
}

// Tag gives an image one more name.
func (f *Runtime) Tag(_ context.Context, ref, newRef string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, err := f.image(ref)
	if err != nil {
		return err
	}
	name, err := runtime.NormalizeRef(newRef)
	if err != nil {
		return err
	}
	if runtime.Pinned(newRef) {
		return runtime.Invalid("refusing to create a tag with a digest reference")
	}
	found.Name = name
	f.images[name] = found
	return nil
}

type archived struct {
	Config   string
	RepoTags []string
}

type settings struct {
	Created time.Time
	Config  struct {
		Env, Cmd, Entrypoint         []string
		User, WorkingDir, StopSignal string
		ExposedPorts                 map[string]struct{}
		Labels                       map[string]string
		Healthcheck                  *dockercontainer.HealthConfig
		Shell                        []string
	}
}

// Load reads names and settings from a docker-archive.
func (f *Runtime) Load(_ context.Context, stream io.Reader) ([]string, error) {
	documents, size, err := jsonFiles(stream)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	var index []archived
	if err := json.Unmarshal(documents["manifest.json"], &index); err != nil {
		return nil, fmt.Errorf("load images: manifest.json: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for _, entry := range index {
		var s settings
		if err := json.Unmarshal(documents[entry.Config], &s); err != nil {
			return nil, fmt.Errorf("load images: %s: %w", entry.Config, err)
		}
		for _, tag := range entry.RepoTags {
			name, err := runtime.NormalizeRef(tag)
			if err != nil {
				return nil, err
			}
			content := string(documents[entry.Config])
			f.images[name] = runtime.Image{
				Name: name, ID: digest(content), Digest: digest("manifest " + content), Size: size, Created: s.Created,
				Env: s.Config.Env, Cmd: s.Config.Cmd, Entrypoint: s.Config.Entrypoint, User: s.Config.User,
				WorkingDir: s.Config.WorkingDir, StopSignal: s.Config.StopSignal, Labels: s.Config.Labels,
				ExposedPorts: slices.Sorted(maps.Keys(s.Config.ExposedPorts)), Healthcheck: s.Config.Healthcheck, Shell: s.Config.Shell,
			}
			names = append(names, runtime.FamiliarRef(name))
		}
	}
	return names, nil
}

// jsonFiles are the JSON documents of an archive, and the size of all files.
func jsonFiles(stream io.Reader) (map[string][]byte, int64, error) {
	documents := map[string][]byte{}
	var size int64
	for files := tar.NewReader(stream); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return documents, size, nil
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read the archive: %w", err)
		}
		size += header.Size
		if filepath.Ext(header.Name) != ".json" {
			continue
		}
		if documents[header.Name], err = io.ReadAll(files); err != nil {
			return nil, 0, fmt.Errorf("read %s of the archive: %w", header.Name, err)
		}
	}
}

// write puts the programmed output into the log, as a log writer would.
func (c *container) write(now time.Time) error {
	if c.spec.LogPath == "" || len(c.process.Output) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.spec.LogPath), 0o750); err != nil {
		return fmt.Errorf("make the log's directory: %w", err)
	}
	w, err := logfile.Open(c.spec.LogPath, logfile.MaxSize, logfile.MaxFiles)
	if err != nil {
		return err
	}
	var errs []error
	for _, line := range c.process.Output {
		errs = append(errs, w.Write(logfile.Entry{Log: line + "\n", Stream: "stdout", Time: now.UTC()}))
	}
	return errors.Join(append(errs, w.Close())...)
}

// Exit ends a running container with a code, as its program would; otherwise it
// is an error.
func (f *Runtime) Exit(id string, code int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.find(id)
	if err != nil {
		return err
	}
	if c.status.State != runtime.Running {
		return runtime.NotRunning(id)
	}
	f.end(c, code)
	return nil
}

// KillAll ends every running container as a power cut would.
func (f *Runtime) KillAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.status.State == runtime.Running {
			f.end(c, 137)
		}
	}
}
