package containerd

import (
	"context"
	"fmt"
	"io"
	"strings"

	ctrd "github.com/containerd/containerd"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/images"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"shoal/node/runtime"
)

// Load imports a docker-archive or an OCI layout as a tar stream, packed or not,
// and returns the familiar names it brought, or the id of what has none.
func (r *Runtime) Load(ctx context.Context, tar io.Reader) ([]string, error) {
	ctx = r.scope(ctx)
	// The lease keeps the content from the garbage collector until it is unpacked.
	ctx, done, err := r.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("lease for loading images: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	imported, err := r.client.Import(ctx, tar,
		ctrd.WithImageRefTranslator(archiveName),
		ctrd.WithDigestRef(func(d digest.Digest) string { return untagged + d.String() }),
		ctrd.WithSkipDigestRef(func(name string) bool { return name != "" }),
	)
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	names := make([]string, 0, len(imported))
	for _, i := range imported {
		if err := r.unpackImage(ctx, ctrd.NewImage(r.client, i)); err != nil {
			return nil, err
		}
		found, err := r.withFacts(ctx, i)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(i.Name, untagged) {
			names = append(names, found.id.String())
			continue
		}
		names = append(names, runtime.FamiliarRef(i.Name))
	}
	return names, nil
}

// archiveName turns the reference name of an OCI layout into an image name. A
// bare tag names no repository and gives none.
func archiveName(ref string) string {
	if !strings.ContainsAny(ref, ":/") {
		return ""
	}
	name, err := runtime.NormalizeRef(ref)
	if err != nil {
		return ""
	}
	return name
}

// Tag gives an image one more name, taking it from another that has it.
func (r *Runtime) Tag(ctx context.Context, ref, newRef string) error {
	ctx = r.scope(ctx)
	found, err := r.localImage(ctx, ref)
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
	store := r.client.ImageService()
	source, err := store.Get(ctx, found.name)
	if err != nil {
		return fmt.Errorf("find image %s: %w", ref, err)
	}
	tagged := images.Image{Name: name, Target: source.Target, Labels: source.Labels}
	_, err = store.Create(ctx, tagged)
	if errdefs.IsAlreadyExists(err) {
		_, err = store.Update(ctx, tagged, "target")
	}
	if err != nil {
		return fmt.Errorf("tag image %s as %s: %w", ref, newRef, err)
	}
	return nil
}

// RemoveImage takes a name away, and with its last name the image. An id takes
// all its names away. It refuses while a container was made from the image and
// no other name is left.
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	ctx = r.scope(ctx)
	found, err := r.localImage(ctx, ref)
	if err != nil {
		return err
	}
	names, err := r.client.ImageService().List(ctx, "target.digest=="+found.target.String())
	if err != nil {
		return fmt.Errorf("list the names of image %s: %w", ref, err)
	}
	remove := namesToRemove(found.name, names, isID(ref, found))
	if len(remove) == len(names) {
		if user := r.userOf(names); user != "" {
			return runtime.ImageInUse(runtime.FamiliarRef(ref), user)
		}
	}
	for i, name := range remove {
		var opts []images.DeleteOpt
		if i == len(remove)-1 {
			opts = append(opts, images.SynchronousDelete())
		}
		if err := r.client.ImageService().Delete(ctx, name, opts...); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", name, err)
		}
	}
	return nil
}

func isID(ref string, found *image) bool {
	hex, ok := imageID(ref)
	return ok && strings.HasPrefix(found.id.Encoded(), hex)
}

// namesToRemove is one name, with the digest names of its repository when no
// tag of it would be left, or all names.
func namesToRemove(name string, names []images.Image, all bool) []string {
	var same, digests []string
	tags := 0
	for _, n := range names {
		same = append(same, n.Name)
		if strings.Contains(n.Name, "@") {
			digests = append(digests, n.Name)
		} else if n.Name != name && repository(n.Name) == repository(name) {
			tags++
		}
	}
	if all {
		return same
	}
	remove := []string{name}
	for _, d := range digests {
		if d != name && tags == 0 && repository(d) == repository(name) {
			remove = append(remove, d)
		}
	}
	return remove
}

func repository(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return named.Name()
}

// userOf is the id of a container that was made from one of the names, or "".
func (r *Runtime) userOf(names []images.Image) string {
	made := map[string]bool{}
	for _, n := range names {
		made[n.Name] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.containers {
		if made[c.rec.ImageName] {
			return id
		}
	}
	return ""
}
