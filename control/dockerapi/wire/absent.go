package wire

import (
	"net/http"
	"sync"

	"shoal/control/api"
)

// absent are the routes of Docker's Engine API that Shoal does not serve: what
// the route is for, and the way out, empty where there is none. A route that a
// router serves wins over one in here.
//
// A client that is asked to inspect something whose kind it does not know tries
// kind after kind, and goes on past an answer only where that is 404 or says
// "not supported".
var absent = []struct{ method, pattern, what, instead string }{
	{"POST", "/containers/{id}/exec", "docker exec", enter},
	{"GET", "/exec/{id}/json", "docker exec", enter},
	{"POST", "/exec/{id}/start", "docker exec", enter},
	{"POST", "/exec/{id}/resize", "docker exec", enter},
	{"GET", "/containers/{id}/top", "docker top", "on the container's node, ps shows its processes"},
	{"GET", "/containers/{id}/stats", "docker stats", "on the container's node, systemd-cgtop shows what it uses"},
	{"HEAD", "/containers/{id}/archive", "docker cp", files},
	{"GET", "/containers/{id}/archive", "docker cp", files},
	{"PUT", "/containers/{id}/archive", "docker cp", files},
	{"GET", "/containers/{id}/export", "docker export", files},
	{"GET", "/containers/{id}/changes", "docker diff", ""},
	{"GET", "/containers/{id}/attach/ws", "attaching over a WebSocket", "POST /containers/{id}/attach does it over HTTP"},
	{"POST", "/containers/{id}/rename", "docker rename", "make the container anew with --name"},
	{"POST", "/containers/{id}/pause", "docker pause", ""},
	{"POST", "/containers/{id}/unpause", "docker unpause", ""},
	{"POST", "/containers/{id}/update", "docker update", "docker service update changes the limits of a service's tasks"},
	{"POST", "/containers/prune", "docker container prune", "docker rm removes containers by name"},
	{"GET", "/containers/{id}/checkpoints", "docker checkpoint", ""},
	{"POST", "/containers/{id}/checkpoints", "docker checkpoint", ""},
	{"DELETE", "/containers/{id}/checkpoints/{name}", "docker checkpoint", ""},

	{"GET", "/images/get", "docker save", "ctr --namespace shoal images export, on the node, writes an image to a file"},
	{"GET", "/images/{name...}/get", "docker save", "ctr --namespace shoal images export, on the node, writes an image to a file"},
	{"GET", "/images/{name...}/history", "docker history", ""},
	{"POST", "/images/{name...}/push", "docker push", "ctr --namespace shoal images push, on the node, sends an image to a registry"},
	{"GET", "/images/search", "docker search", ""},
	{"POST", "/images/prune", "docker image prune", "docker rmi removes images by name"},
	{"POST", "/commit", "docker commit", build},
	{"POST", "/build", "docker build", build},
	{"POST", "/build/prune", "docker builder prune", "there is no build cache"},
	{"POST", "/build/cancel", "docker build", build},
	{"POST", "/session", "building with BuildKit", build},
	{"POST", "/grpc", "building with BuildKit", build},
	{"POST", "/auth", "docker login", "docker pull sends what the client's config.json has under auths"},

	{"POST", "/volumes/create", "docker volume create", "a volume comes into being with the first task that mounts it"},
	{"GET", "/volumes/{name...}", "docker volume inspect", "docker volume ls lists the volumes of a node"},
	{"PUT", "/volumes/{name...}", "docker volume update", ""},
	{"DELETE", "/volumes/{name...}", "docker volume rm", discard},
	{"POST", "/volumes/prune", "docker volume prune", discard},

	{"POST", "/networks/{id}/connect", "docker network connect", "docker run takes --network several times, docker service update takes --network-add"},
	{"POST", "/networks/{id}/disconnect", "docker network disconnect", "docker service update takes --network-rm"},
	{"GET", "/services/{id}/logs", "docker service logs", logs},
	{"GET", "/tasks/{id}/logs", "docker service logs", logs},

	{"GET", "/system/df", "docker system df", "docker image ls shows the sizes of images"},
	{"GET", "/plugins/privileges", "docker plugin install", ""},
	{"GET", "/plugins/{name...}/json", "docker plugin inspect", ""},
	{"POST", "/plugins/pull", "docker plugin install", ""},
	{"POST", "/plugins/create", "docker plugin create", ""},
	{"POST", "/plugins/{name...}/enable", "docker plugin enable", ""},
	{"POST", "/plugins/{name...}/disable", "docker plugin disable", ""},
	{"POST", "/plugins/{name...}/upgrade", "docker plugin upgrade", ""},
	{"POST", "/plugins/{name...}/push", "docker plugin push", ""},
	{"POST", "/plugins/{name...}/set", "docker plugin set", ""},
	{"DELETE", "/plugins/{name...}", "docker plugin rm", ""},
}

// Ways out that several routes share.
const (
	enter   = `on the container's node, nsenter -t PID -a COMMAND does it, with the PID of docker inspect -f "{{.State.Pid}}"`
	files   = `on the container's node, its files are below /proc/PID/root, with the PID of docker inspect -f "{{.State.Pid}}"`
	discard = "once nothing on a node mounts a volume, its directory below volumes in the node's state directory can be removed"
	build   = "build the image elsewhere, then docker load it on every node, or push it to a registry that the nodes reach"
	logs    = "docker service ps names the nodes of the tasks, and docker logs on such a node shows a task's log"
)

// absentRoutes answers what is in absent.
var absentRoutes = sync.OnceValue(func() *Router {
	rt := NewRouter(nil)
	for _, a := range absent {
		err := api.Errorf(api.Unimplemented, "%s is not supported by this version", a.what)
		if a.instead != "" {
			err = api.Errorf(api.Unimplemented, "%w: %s", err, a.instead)
		}
		rt.Handle(a.method, a.pattern, func(http.ResponseWriter, *http.Request, map[string]string) error { return err })
	}
	return rt
})

// Absent lists the routes of Docker's that every router answers with 501 unless
// it serves them, as Routes does.
func Absent() []string { return absentRoutes().Routes() }
