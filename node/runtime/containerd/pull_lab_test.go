//go:build lab

package containerd

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/node/runtime/runtimetest"
)

// registry serves one image under team/app:v1, to the user anna only.
type registry struct {
	blobs    map[string][]byte
	manifest []byte
	auth     string
	asked    int
}

func sum(raw []byte) string {
	s := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(s[:])
}

func newRegistry(t *testing.T) (*registry, string) {
	t.Helper()
	g := &registry{blobs: map[string][]byte{}, auth: "Basic " + base64.StdEncoding.EncodeToString([]byte("anna:secret"))}
	manifest := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	manifest.SchemaVersion = 2
	for files := tar.NewReader(runtimetest.Archive(t, "x:1")); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		raw, readErr := io.ReadAll(files)
		if err != nil || readErr != nil {
			t.Fatal(err, readErr)
		}
		d := ocispec.Descriptor{Size: int64(len(raw)), Digest: digest.FromBytes(raw)}
		switch {
		case filepath.Base(header.Name) == "layer.tar":
			d.MediaType = ocispec.MediaTypeImageLayer
			manifest.Layers = append(manifest.Layers, d)
		case header.Name != "manifest.json":
			d.MediaType = ocispec.MediaTypeImageConfig
			manifest.Config = d
		}
		g.blobs[sum(raw)] = raw
	}
	var err error
	if g.manifest, err = json.Marshal(manifest); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	return g, strings.TrimPrefix(server.URL, "http://")
}

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.asked++
	if r.Header.Get("Authorization") != g.auth {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	raw, found := g.blobs[name]
	if strings.Contains(r.URL.Path, "/manifests/") && (name == "v1" || name == sum(g.manifest)) {
		raw, found = g.manifest, true
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	}
	if !found || !strings.HasPrefix(r.URL.Path, "/v2/team/app/") {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Docker-Content-Digest", sum(raw))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(raw))
}

func TestPull(t *testing.T) {
	b := newBench(t)
	g, host := newRegistry(t)
	ref := host + "/team/app:v1"
	auth := base64.URLEncoding.EncodeToString([]byte(`{"username":"anna","password":"secret"}`))
	// The same layer from elsewhere would leave nothing to fetch.
	b.must(b.r.RemoveImage(b.ctx(), runtimetest.Image))
	var progress bytes.Buffer
	image, err := b.r.Pull(b.ctx(), ref, auth, &progress)
	b.must(err)
	if image.Name != ref || image.Digest != sum(g.manifest) {
		t.Errorf("pulled %+v", image)
	}
	for _, text := range []string{`"Pulling from team/app","id":"v1"`, `"Pull complete"`, "Digest: " + image.Digest, "Downloaded newer image for " + ref} {
		if !strings.Contains(progress.String(), text) {
			t.Errorf("no %s in %s", text, &progress)
		}
	}
	c := b.spec("exit", "6")
	c.Image = ref
	if status, _ := b.output(c); status.ExitCode != 6 {
		t.Errorf("end: %+v", status)
	}
	before := g.asked
	if _, err := b.r.EnsureImage(b.ctx(), ref+"@"+image.Digest, auth); err != nil || g.asked != before {
		t.Errorf("a pinned image that is here: %v, asked %d times", err, g.asked-before)
	}
	if _, err := b.r.EnsureImage(b.ctx(), ref, ""); err != nil {
		t.Errorf("an image that is here and refused there: %v", err)
	}
	for missing, text := range map[string]string{
		host + "/team/app:v9": "manifest for " + host + "/team/app:v9 not found",
		host + "/team/none":   "manifest for " + host + "/team/none:latest not found",
	} {
		if _, err := b.r.Pull(b.ctx(), missing, auth, io.Discard); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", missing, err)
		}
	}
	_, err = b.r.Pull(b.ctx(), host+"/team/secret", "", io.Discard)
	if !errdefs.IsNotFound(err) || !strings.Contains(fmt.Sprint(err), "pull access denied for "+host+"/team/secret") {
		t.Errorf("without a password: %v", err)
	}
}

func TestUnreachableRegistryIsAskedOnce(t *testing.T) {
	b := newBench(t)
	const ref = "127.0.0.1:1/app:v1"
	b.must(b.r.Tag(b.ctx(), runtimetest.Image, ref))
	for range 3 {
		image, err := b.r.EnsureImage(b.ctx(), ref, "")
		if err != nil || image.Name != ref {
			t.Errorf("%+v %v", image, err)
		}
	}
	if down, _ := b.r.registries.isDown("127.0.0.1:1"); !down {
		t.Error("it is not remembered as unreachable")
	}
}
