package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	ctrd "github.com/containerd/containerd"
	"github.com/containerd/containerd/content"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/containerd/containerd/platforms"
	"github.com/distribution/reference"
	dockercontainer "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/node/runtime"
)

// untagged is the name under which an image without a name is kept; its digest
// follows.
const untagged = "untagged@"

// image is an image with what its content says.
type image struct {
	name   string
	target digest.Digest
	*facts
}

// facts are read from the content, so they never change for a digest.
type facts struct {
	id      digest.Digest
	config  ocispec.Image
	docker  dockerConfig
	chainID string
	size    int64
}

// dockerConfig is what Docker's images say beyond the OCI specification.
type dockerConfig struct {
	Config struct {
		Healthcheck *dockercontainer.HealthConfig
		Shell       []string
	} `json:"config"`
}

// imageCache holds the facts of the images that are present, by target digest.
type imageCache struct {
	mu    sync.Mutex
	facts map[digest.Digest]*facts
}

func (c *imageCache) get(target digest.Digest) *facts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts[target]
}

func (c *imageCache) put(target digest.Digest, f *facts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.facts == nil {
		c.facts = map[digest.Digest]*facts{}
	}
	c.facts[target] = f
}

// keep drops the facts of images that are not present any more.
func (c *imageCache) keep(present map[digest.Digest]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for target := range c.facts {
		if !present[target] {
			delete(c.facts, target)
		}
	}
}

func (r *Runtime) facts(ctx context.Context, target ocispec.Descriptor) (*facts, error) {
	if f := r.images.get(target.Digest); f != nil {
		return f, nil
	}
	store := r.client.ContentStore()
	manifest, err := images.Manifest(ctx, store, target, platforms.Default())
	if err != nil {
		return nil, fmt.Errorf("manifest of image %s: %w", target.Digest, err)
	}
	raw, err := content.ReadBlob(ctx, store, manifest.Config)
	if err != nil {
		return nil, fmt.Errorf("configuration of image %s: %w", target.Digest, err)
	}
	f := &facts{id: manifest.Config.Digest, size: manifest.Config.Size}
	if err := json.Unmarshal(raw, &f.config); err != nil {
		return nil, fmt.Errorf("decode the configuration of image %s: %w", target.Digest, err)
	}
	if err := json.Unmarshal(raw, &f.docker); err != nil {
		return nil, fmt.Errorf("decode the health check of image %s: %w", target.Digest, err)
	}
	for _, layer := range manifest.Layers {
		f.size += layer.Size
	}
	f.chainID = identity.ChainID(f.config.RootFS.DiffIDs).String()
	r.images.put(target.Digest, f)
	return f, nil
}

func (r *Runtime) withFacts(ctx context.Context, found images.Image) (*image, error) {
	f, err := r.facts(ctx, found.Target)
	if err != nil {
		return nil, err
	}
	return &image{name: found.Name, target: found.Target.Digest, facts: f}, nil
}

// localImage finds an image that is present by name, by digest or by id.
func (r *Runtime) localImage(ctx context.Context, ref string) (*image, error) {
	if id, ok := imageID(ref); ok {
		if found, err := r.imageByID(ctx, id); found != nil || err != nil {
			return found, err
		}
	}
	name, err := runtime.NormalizeRef(ref)
	if err != nil {
		return nil, err
	}
	found, err := r.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return r.imageByDigest(ctx, ref, name)
	}
	if err != nil {
		return nil, fmt.Errorf("find image %s: %w", ref, err)
	}
	return r.withFacts(ctx, found)
}

// imageByDigest finds repository@digest among the tags of the repository.
func (r *Runtime) imageByDigest(ctx context.Context, ref, name string) (*image, error) {
	named, err := reference.ParseNormalizedNamed(name)
	pinned, ok := named.(reference.Digested)
	if err != nil || !ok {
		return nil, runtime.NoSuchImage(runtime.FamiliarRef(ref))
	}
	all, err := r.client.ImageService().List(ctx, "target.digest=="+pinned.Digest().String())
	if err != nil {
		return nil, fmt.Errorf("find image %s: %w", ref, err)
	}
	for _, candidate := range all {
		have, err := reference.ParseNormalizedNamed(candidate.Name)
		if err == nil && have.Name() == named.Name() {
			return r.withFacts(ctx, candidate)
		}
	}
	return nil, runtime.NoSuchImage(runtime.FamiliarRef(ref))
}

// imageID reports whether a reference can be an id: sha256:… or at least 12 hex
// digits, which may be shortened.
func imageID(ref string) (string, bool) {
	hex, prefixed := strings.CutPrefix(ref, "sha256:")
	if strings.Trim(hex, "0123456789abcdef") != "" || len(hex) > 64 {
		return "", false
	}
	return hex, prefixed && hex != "" || len(hex) >= 12
}

func (r *Runtime) imageByID(ctx context.Context, hex string) (*image, error) {
	all, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the images: %w", err)
	}
	var match *image
	for _, candidate := range all {
		have, err := r.withFacts(ctx, candidate)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(have.id.Encoded(), hex) {
			continue
		}
		if match != nil && match.id != have.id {
			return nil, runtime.Invalid("image id %s is ambiguous", hex)
		}
		match = have
	}
	return match, nil
}

func (i *image) public() runtime.Image {
	c := i.config.Config
	out := runtime.Image{
		Name: i.name, ID: i.id.String(), Digest: i.target.String(), Size: i.size,
		Env: c.Env, Cmd: c.Cmd, Entrypoint: c.Entrypoint, User: c.User, WorkingDir: c.WorkingDir,
		StopSignal: c.StopSignal, Labels: c.Labels, Healthcheck: i.docker.Config.Healthcheck, Shell: i.docker.Config.Shell,
	}
	if strings.HasPrefix(i.name, untagged) {
		out.Name = ""
	}
	if i.config.Created != nil {
		out.Created = *i.config.Created
	}
	for port := range c.ExposedPorts {
		out.ExposedPorts = append(out.ExposedPorts, port)
	}
	return out
}

// Image returns one image that is present.
func (r *Runtime) Image(ctx context.Context, ref string) (runtime.Image, error) {
	found, err := r.localImage(r.scope(ctx), ref)
	if err != nil {
		return runtime.Image{}, err
	}
	return found.public(), nil
}

// Images returns every name of every image. A name by digest is left out when
// the same image has a tag.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	ctx = r.scope(ctx)
	all, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the images: %w", err)
	}
	present, tagged := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for _, i := range all {
		present[i.Target.Digest] = true
		if !strings.Contains(i.Name, "@") {
			tagged[i.Target.Digest] = true
		}
	}
	r.images.keep(present)
	list := make([]runtime.Image, 0, len(all))
	for _, i := range all {
		if strings.Contains(i.Name, "@") && tagged[i.Target.Digest] {
			continue
		}
		found, err := r.withFacts(ctx, i)
		if err != nil {
			return nil, err
		}
		list = append(list, found.public())
	}
	return list, nil
}

// unpack makes the image's layers ready for containers.
func (r *Runtime) unpack(ctx context.Context, name string) error {
	found, err := r.client.GetImage(ctx, name)
	if err != nil {
		return fmt.Errorf("find image %s: %w", name, err)
	}
	return r.unpackImage(ctx, found)
}

func (r *Runtime) unpackImage(ctx context.Context, i ctrd.Image) error {
	if err := i.Unpack(ctx, r.snapshotter); err != nil {
		return fmt.Errorf("unpack image %s: %w", i.Name(), err)
	}
	return nil
}
