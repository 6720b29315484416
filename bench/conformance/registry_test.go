//go:build lab

package conformance

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
	"shoal/bench/need"
	"shoal/overlay/netns"
)

// registryAddress is where the registry listens, on h1 only: a registry on the
// loopback address is spoken to without TLS.
const registryAddress = "127.0.0.1:5000"

const registryConfig = `version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: %s}}
http: {addr: "` + registryAddress + `"}
`

// registry is a client of a registry inside a host's network namespace.
type registry struct {
	client http.Client
	repo   string
}

// startRegistry runs Debian's registry on h1, puts the sample image in as
// team/whoami:v1 and returns where it is.
func startRegistry(t *testing.T, l *lab.Lab) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	need.Feature(t, "docker-registry", err)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, registryConfig, filepath.Join(dir, "blobs")), 0o644); err != nil {
		t.Fatal(err)
	}
	h := l.Hosts()[0]
	var complaints bytes.Buffer
	ctx, stop := context.WithCancel(t.Context())
	cmd := h.Command(ctx, program, "serve", config)
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // killed
	})
	r := registry{repo: "team/whoami", client: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return netns.Dial(ctx, "/run/netns/"+h.Namespace, network, address)
		},
	}}}
	labtest.Eventually(t, 20*time.Second, "the registry answers", func() error {
		if err := r.call(http.MethodGet, "http://"+registryAddress+"/v2/", "", nil, nil); err != nil {
			return fmt.Errorf("%w: %s", err, complaints.String())
		}
		return nil
	})
	if err := r.push(labtest.Program(t, "whoami.tar"), "v1"); err != nil {
		t.Fatal(err)
	}
	return registryAddress
}

// push uploads an image archive's blobs and its manifest, as docker push does.
func (r registry) push(archive, tag string) error {
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer file.Close()
	manifest := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	manifest.SchemaVersion = 2
	for files := tar.NewReader(file); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		raw, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		d := ocispec.Descriptor{Size: int64(len(raw)), Digest: digest.FromBytes(raw)}
		switch {
		case path.Base(header.Name) == "layer.tar":
			d.MediaType = ocispec.MediaTypeImageLayer
			manifest.Layers = append(manifest.Layers, d)
		case path.Ext(header.Name) == ".json" && header.Name != "manifest.json":
			d.MediaType = ocispec.MediaTypeImageConfig
			manifest.Config = d
		default:
			continue
		}
		if err := r.blob(d.Digest, raw); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	return r.call(http.MethodPut, r.url("manifests/"+tag), ocispec.MediaTypeImageManifest, raw, nil)
}

// blob uploads one blob: the registry says where, and takes it in one piece.
func (r registry) blob(d digest.Digest, raw []byte) error {
	var header http.Header
	if err := r.call(http.MethodPost, r.url("blobs/uploads/"), "", nil, &header); err != nil {
		return err
	}
	to, err := url.Parse(header.Get("Location"))
	if err != nil {
		return err
	}
	query := to.Query()
	query.Set("digest", d.String())
	to.RawQuery = query.Encode()
	return r.call(http.MethodPut, to.String(), "application/octet-stream", raw, nil)
}

func (r registry) url(tail string) string {
	return "http://" + registryAddress + "/v2/" + r.repo + "/" + tail
}

func (r registry) call(method, to, kind string, body []byte, header *http.Header) error {
	request, err := http.NewRequest(method, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", kind)
	answer, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= http.StatusBadRequest {
		raw, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("%s %s: %s: %s", method, to, answer.Status, raw)
	}
	if header != nil {
		*header = answer.Header
	}
	return nil
}
