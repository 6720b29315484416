package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	ctrd "github.com/containerd/containerd"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/node/runtime"
)

// pullPatience bounds a pull that nobody watches.
const pullPatience = 30 * time.Minute

// EnsureImage makes the image present. What is present and pinned, or whose
// registry was just found to be unreachable, is not asked for again.
func (r *Runtime) EnsureImage(ctx context.Context, ref, auth string) (runtime.Image, error) {
	ctx = r.scope(ctx)
	have, err := r.localImage(ctx, ref)
	if err != nil && !errdefs.IsNotFound(err) {
		return runtime.Image{}, err
	}
	if _, id := imageID(ref); have != nil && (id || runtime.Pinned(ref)) {
		return have.public(), nil
	}
	name, err := runtime.NormalizeRef(ref)
	if err != nil {
		return runtime.Image{}, err
	}
	if down, stale := r.registries.isDown(registryOf(name)); have != nil && down {
		if stale {
			r.askAgain(name, auth)
		}
		return have.public(), nil
	}
	pulled, err := r.pullOnce(ctx, name, auth)
	switch {
	case err == nil:
		return pulled, nil
	case ctx.Err() != nil:
		return runtime.Image{}, err
	case have != nil:
		r.log.Debug("using the image that is here", "image", name, "pull", err)
		return have.public(), nil
	}
	r.log.Warn("image is neither here nor to be had", "image", name, "error", err)
	return runtime.Image{}, runtime.NotToBeHad(runtime.FamiliarRef(ref), err)
}

// pullOnce joins a pull of the same image that is under way, as when several
// tasks of a service come at once. The pull goes on when one of them gives up.
func (r *Runtime) pullOnce(ctx context.Context, name, auth string) (runtime.Image, error) {
	result := r.pulls.DoChan(name+" "+auth, func() (any, error) {
		own, cancel := context.WithTimeout(r.ctx, pullPatience)
		defer cancel()
		return r.Pull(own, name, auth, io.Discard)
	})
	select {
	case pulled := <-result:
		image, _ := pulled.Val.(runtime.Image)
		return image, pulled.Err
	case <-ctx.Done():
		return runtime.Image{}, fmt.Errorf("pull %s: %w", runtime.FamiliarRef(name), ctx.Err())
	}
}

// askAgain looks in the background whether a registry can be reached again. It
// is marked as unreachable meanwhile, so that one question is asked at a time.
func (r *Runtime) askAgain(name, auth string) {
	resolver, err := r.registries.resolver(auth)
	if err != nil {
		return
	}
	host := registryOf(name)
	r.registries.postpone(host)
	r.watchers.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, answerTimeout)
		defer cancel()
		_, _, err := resolver.Resolve(ctx, name)
		r.registries.note(host, err)
	})
}

// Pull fetches and unpacks the image for this machine's platform.
func (r *Runtime) Pull(ctx context.Context, ref, auth string, progress io.Writer) (runtime.Image, error) {
	name, err := runtime.NormalizeRef(ref)
	if err != nil {
		return runtime.Image{}, err
	}
	resolver, err := r.registries.resolver(auth)
	if err != nil {
		return runtime.Image{}, err
	}
	ctx = r.scope(ctx)
	tell := &teller{w: progress}
	tell.pulling(name)
	before, _ := r.client.ImageService().Get(ctx, name)
	pulled, err := r.client.Pull(ctx, name,
		ctrd.WithResolver(resolver), ctrd.WithPullUnpack, ctrd.WithPullSnapshotter(r.snapshotter),
		ctrd.WithImageHandler(images.HandlerFunc(tell.layer)),
	)
	r.registries.note(registryOf(name), err)
	if err != nil {
		return runtime.Image{}, pullError(name, err)
	}
	tell.pulled(name, pulled.Target().Digest.String(), before.Target.Digest == pulled.Target().Digest)
	found, err := r.withFacts(ctx, pulled.Metadata())
	if err != nil {
		return runtime.Image{}, err
	}
	return found.public(), tell.failed()
}

// teller writes progress as docker pull reads it: one JSON object a line.
type teller struct {
	mu     sync.Mutex
	w      io.Writer
	layers []string
	err    error
}

type progressLine struct {
	Status string `json:"status"`
	ID     string `json:"id,omitempty"`
}

func (t *teller) line(status, id string) {
	if t.err == nil {
		t.err = json.NewEncoder(t.w).Encode(progressLine{status, id})
	}
}

func (t *teller) pulling(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return
	}
	version := ""
	switch v := named.(type) {
	case reference.Tagged:
		version = v.Tag()
	case reference.Digested:
		version = v.Digest().String()
	}
	t.line("Pulling from "+reference.Path(named), version)
}

// layer is called for everything that a pull fetches.
func (t *teller) layer(_ context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if !images.IsLayerType(d.MediaType) {
		return nil, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	short := d.Digest.Encoded()[:12]
	t.layers = append(t.layers, short)
	t.line("Pulling fs layer", short)
	return nil, nil
}

func (t *teller) pulled(name, digest string, same bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, short := range t.layers {
		t.line("Pull complete", short)
	}
	t.line("Digest: "+digest, "")
	if same {
		t.line("Status: Image is up to date for "+runtime.FamiliarRef(name), "")
		return
	}
	t.line("Status: Downloaded newer image for "+runtime.FamiliarRef(name), "")
}

func (t *teller) failed() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return fmt.Errorf("write the progress of a pull: %w", t.err)
	}
	return nil
}
