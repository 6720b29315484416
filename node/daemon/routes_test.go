package daemon

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"shoal/control/dockerapi"
	"shoal/control/dockerapi/wire"
	"shoal/node/engineapi"
)

// dockerRoutes are all routes of the Docker Engine API 1.47, with those that its
// clients and servers use without documenting them.
const dockerRoutes = `
GET /_ping
HEAD /_ping
POST /auth
POST /build
POST /build/cancel
POST /build/prune
POST /commit
GET /configs
GET /configs/{}
DELETE /configs/{}
POST /configs/create
POST /configs/{}/update
GET /containers/json
POST /containers/create
POST /containers/prune
DELETE /containers/{}
GET /containers/{}/archive
HEAD /containers/{}/archive
PUT /containers/{}/archive
POST /containers/{}/attach
GET /containers/{}/attach/ws
GET /containers/{}/changes
GET /containers/{}/checkpoints
POST /containers/{}/checkpoints
DELETE /containers/{}/checkpoints/{}
POST /containers/{}/exec
GET /containers/{}/export
GET /containers/{}/json
POST /containers/{}/kill
GET /containers/{}/logs
POST /containers/{}/pause
POST /containers/{}/rename
POST /containers/{}/resize
POST /containers/{}/restart
POST /containers/{}/start
GET /containers/{}/stats
POST /containers/{}/stop
GET /containers/{}/top
POST /containers/{}/unpause
POST /containers/{}/update
POST /containers/{}/wait
GET /distribution/{}/json
GET /events
GET /exec/{}/json
POST /exec/{}/resize
POST /exec/{}/start
POST /grpc
POST /images/create
GET /images/get
GET /images/json
POST /images/load
POST /images/prune
GET /images/search
DELETE /images/{}
GET /images/{}/get
GET /images/{}/history
GET /images/{}/json
POST /images/{}/push
POST /images/{}/tag
GET /info
GET /networks
POST /networks/create
POST /networks/prune
GET /networks/{}
DELETE /networks/{}
POST /networks/{}/connect
POST /networks/{}/disconnect
GET /nodes
GET /nodes/{}
DELETE /nodes/{}
POST /nodes/{}/update
GET /plugins
POST /plugins/create
GET /plugins/privileges
POST /plugins/pull
DELETE /plugins/{}
POST /plugins/{}/disable
POST /plugins/{}/enable
GET /plugins/{}/json
POST /plugins/{}/push
POST /plugins/{}/set
POST /plugins/{}/upgrade
GET /secrets
POST /secrets/create
GET /secrets/{}
DELETE /secrets/{}
POST /secrets/{}/update
GET /services
POST /services/create
GET /services/{}
DELETE /services/{}
GET /services/{}/logs
POST /services/{}/update
POST /session
GET /swarm
POST /swarm/init
POST /swarm/join
POST /swarm/leave
POST /swarm/unlock
GET /swarm/unlockkey
POST /swarm/update
GET /system/df
GET /tasks
GET /tasks/{}
GET /tasks/{}/logs
GET /version
GET /volumes
POST /volumes/create
POST /volumes/prune
DELETE /volumes/{}
GET /volumes/{}
PUT /volumes/{}`

var variable = regexp.MustCompile(`\{[^}]*\}`)

// Every route of Docker's is either served by one half of the API or refused by
// name, and none is both.
func TestRoutesOfDocker(t *testing.T) {
	rt := wire.NewRouter(nil)
	engineapi.New(engineapi.Config{}).Mount(rt)
	dockerapi.New(dockerapi.Config{}).Mount(rt)
	var known []string
	for _, route := range slices.Concat(rt.Routes(), wire.Absent()) {
		known = append(known, variable.ReplaceAllString(route, "{}"))
	}
	slices.Sort(known)
	want := strings.Split(strings.TrimSpace(dockerRoutes), "\n")
	slices.Sort(want)
	for _, route := range want {
		at, found := slices.BinarySearch(known, route)
		if !found {
			t.Errorf("%s is neither served nor refused", route)
			continue
		}
		known = slices.Delete(known, at, at+1)
	}
	for _, route := range known {
		t.Errorf("%s is no route of Docker's, or both served and refused", route)
	}
}
