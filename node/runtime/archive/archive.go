// Package archive builds container images of one static program without any
// container tool. It writes the format that docker save writes, and the same
// bytes for the same program. It never compresses and never pushes.
package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
)

// epoch is the time of everything in an archive, so that it depends on nothing
// but its content.
var epoch = time.Unix(0, 0).UTC()

// Image is what to build.
type Image struct {
	// Program is the content of the static binary; Path is where it goes, which
	// is also the entry point, such as /whoami.
	Program []byte
	Path    string
	// Tags are names such as shoal/whoami:latest.
	Tags []string
	// Ports are exposed, such as 80/tcp.
	Ports []string
	// Healthcheck and Shell are those of a Dockerfile; none when nil.
	Healthcheck *container.HealthConfig
	Shell       []string
	// Files are further regular files of mode 0644, by absolute path.
	Files map[string]string
}

type config struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       settings  `json:"config"`
	RootFS       rootFS    `json:"rootfs"`
	History      []history `json:"history"`
}

type settings struct {
	Entrypoint   []string
	Env          []string
	WorkingDir   string
	ExposedPorts map[string]struct{}     `json:",omitempty"`
	Healthcheck  *container.HealthConfig `json:",omitempty"`
	Shell        []string                `json:",omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Write writes the image as a docker-archive.
func Write(w io.Writer, image Image) error {
	layer, err := image.layer()
	if err != nil {
		return err
	}
	configuration, err := json.Marshal(image.config(layer))
	if err != nil {
		return fmt.Errorf("encode the configuration of the image: %w", err)
	}
	configName, layerName := digest(configuration)+".json", digest(layer)+"/layer.tar"
	index, err := json.Marshal([]manifest{{Config: configName, RepoTags: image.Tags, Layers: []string{layerName}}})
	if err != nil {
		return fmt.Errorf("encode the manifest of the image: %w", err)
	}
	out := tar.NewWriter(w)
	for _, file := range []struct {
		name    string
		content []byte
	}{{configName, configuration}, {layerName, layer}, {"manifest.json", index}} {
		if err := put(out, file.name, 0o644, file.content); err != nil {
			return err
		}
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("end the archive: %w", err)
	}
	return nil
}

// layer is the one layer: the program and the files, each in its directories.
func (i Image) layer() ([]byte, error) {
	var raw bytes.Buffer
	w := tar.NewWriter(&raw)
	made := map[string]bool{}
	add := func(path string, mode int64, content []byte) error {
		name := strings.TrimPrefix(path, "/")
		if err := directories(w, name, made); err != nil {
			return err
		}
		return put(w, name, mode, content)
	}
	if err := add(i.Path, 0o755, i.Program); err != nil {
		return nil, err
	}
	for _, path := range sortedKeys(i.Files) {
		if err := add(path, 0o644, []byte(i.Files[path])); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("end the layer: %w", err)
	}
	return raw.Bytes(), nil
}

func (i Image) config(layer []byte) config {
	ports := map[string]struct{}{}
	for _, port := range i.Ports {
		ports[port] = struct{}{}
	}
	return config{
		Created: epoch, Architecture: runtime.GOARCH, OS: "linux",
		Config: settings{
			Entrypoint:   []string{i.Path},
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			WorkingDir:   "/",
			ExposedPorts: ports,
			Healthcheck:  i.Healthcheck,
			Shell:        i.Shell,
		},
		RootFS:  rootFS{Type: "layers", DiffIDs: []string{"sha256:" + digest(layer)}},
		History: []history{{Created: epoch, CreatedBy: "COPY " + i.Path}},
	}
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
