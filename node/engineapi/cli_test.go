package engineapi

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"shoal/bench/need"
)

// docker runs the stock client against the node and returns what it printed.
func (h *host) docker(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=tcp"+strings.TrimPrefix(h.url, "http"), "DOCKER_CONFIG="+h.dir)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// What the stock client says where a route is missing is a sentence, not an empty
// table, and what it tries on its way to something else does not stop it.
func TestDockerCLIOfAbsentRoutes(t *testing.T) {
	_, err := exec.LookPath("docker")
	need.Feature(t, "docker-cli", err)
	h := newHost(t)
	h.container("c1", "box", nil)
	file := h.dir + "/file"
	for _, tar := range []string{file, h.dir + "/Dockerfile"} {
		if err := os.WriteFile(tar, []byte("FROM scratch\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for command, want := range map[string]string{
		"exec box ls":                              "docker exec is not supported by this version: on the container's node, nsenter",
		"exec -it box sh":                          "TTY",
		"top box":                                  "docker top is not supported by this version",
		"stats box":                                "docker stats is not supported by this version",
		"stats --no-stream box":                    "docker stats is not supported by this version",
		"cp box:/etc " + h.dir + "/x":              "docker cp is not supported by this version",
		"cp " + file + " box:/x":                   "docker cp is not supported by this version",
		"diff box":                                 "docker diff is not supported by this version",
		"export -o " + file + " box":               "docker export is not supported by this version",
		"rename box other":                         "docker rename is not supported by this version",
		"pause box":                                "docker pause is not supported by this version",
		"unpause box":                              "docker unpause is not supported by this version",
		"update --memory 64m box":                  "docker update is not supported by this version",
		"container prune -f":                       "docker container prune is not supported by this version",
		"commit box x":                             "docker commit is not supported by this version",
		"build " + h.dir:                           "docker build is not supported by this version",
		"builder prune -f":                         "docker builder prune is not supported by this version",
		"push web:1":                               "docker push is not supported by this version",
		"save -o " + file + " web:1":               "docker save is not supported by this version",
		"save -o " + file + " web:1 db:1":          "docker save is not supported by this version",
		"history web:1":                            "docker history is not supported by this version",
		"search web":                               "docker search is not supported by this version",
		"image prune -f":                           "docker image prune is not supported by this version",
		"login -u a -p b reg.example":              "docker login is not supported by this version",
		"volume create v":                          "docker volume create is not supported by this version",
		"volume inspect v":                         "docker volume inspect is not supported by this version",
		"volume rm v":                              "docker volume rm is not supported by this version",
		"volume prune -f":                          "docker volume prune is not supported by this version",
		"network connect n box":                    "docker network connect is not supported by this version",
		"network disconnect n box":                 "docker network disconnect is not supported by this version",
		"system df":                                "docker system df is not supported by this version",
		"plugin inspect p":                         "docker plugin inspect is not supported by this version",
		"plugin rm p":                              "docker plugin rm is not supported by this version",
		"plugin install --grant-all-permissions p": "docker plugin install is not supported by this version",
		"pull nope:1":                              "pull access denied for nope, repository does not exist or may require 'docker login'",
		"inspect nothing":                          "No such object: nothing",
	} {
		out, err := h.docker(strings.Fields(command)...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("docker %s: %v\n%s\nwant %s", command, err, out, want)
		}
	}
	for _, command := range []string{"version", "info", "ps", "volume ls", "plugin ls", "inspect box", "port box", "image ls"} {
		if out, err := h.docker(strings.Fields(command)...); err != nil {
			t.Errorf("docker %s: %v\n%s", command, err, out)
		}
	}
}
