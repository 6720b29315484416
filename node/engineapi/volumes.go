package engineapi

import (
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/plugin"
	"github.com/moby/moby/api/types/volume"

	"shoal/control/dockerapi/wire"
)

// VolumeDir is where a node's named volumes are, below its state directory.
func VolumeDir(stateDir string) string { return filepath.Join(stateDir, "volumes") }

// listVolumes lists the local volumes that tasks of this node have brought into being.
func (a *API) listVolumes(w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	out := volume.ListResponse{Volumes: []volume.Volume{}, Warnings: []string{}}
	entries, err := os.ReadDir(VolumeDir(a.cfg.StateDir))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		v := volume.Volume{
			Name: e.Name(), Driver: "local", Scope: "local", Labels: map[string]string{}, Options: map[string]string{},
			Mountpoint: filepath.Join(VolumeDir(a.cfg.StateDir), e.Name(), "_data"),
		}
		if info, err := e.Info(); err == nil {
			v.CreatedAt = info.ModTime().UTC().Format(time.RFC3339)
		}
		out.Volumes = append(out.Volumes, v)
	}
	return wire.WriteJSON(w, http.StatusOK, out)
}

func (a *API) listPlugins(w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	return wire.WriteJSON(w, http.StatusOK, []plugin.Plugin{})
}
