// Package engineapi answers the local half of the Docker Engine API: what
// belongs to this one node, whoever manages it. Images, containers, logs,
// version, info and events. It never reads or writes the cluster's state.
package engineapi

import (
	"context"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/dockerapi/wire"
	"shoal/node/runtime"
	"shoal/node/standalone"
)

// Config is what the API needs; every field but ClusterEvents, Health, Ports and
// NetworkMode must be set.
type Config struct {
	Runtime runtime.Runtime
	// Swarm says what part the node has in a cluster, from memory.
	Swarm func() swarm.Info
	// Health says how a task of this node is, nil without a health check. It may
	// be nil.
	Health func(taskID string) *container.Health
	// Ports are those of the host that lead to a task of this node. It may be nil.
	Ports func(taskID string) []swarm.PortConfig
	// NetworkMode is "host" or "none" for a task of this node that is on the network
	// of that name, "" for others. It may be nil.
	NetworkMode func(taskID string) string
	// Standalone has the containers that are no service's.
	Standalone *standalone.Store
	// Hostname, Version and StateDir are for info.
	Hostname, Version, StateDir string
	// ClusterEvents sends the cluster's events until ctx ends; on a node that
	// is not a manager it just waits. It may be nil.
	ClusterEvents func(ctx context.Context, send func(events.Message) error) error
	Now           func() time.Time
}

// API answers the routes of the node.
type API struct {
	cfg    Config
	events *broadcaster
}

// New returns the API.
func New(cfg Config) *API {
	return &API{cfg: cfg, events: newBroadcaster()}
}

// Mount adds the node's routes to a router.
func (a *API) Mount(rt *wire.Router) {
	wire.HandlePing(rt, a.cfg.Swarm)
	rt.Handle(http.MethodGet, "/version", a.version)
	rt.Handle(http.MethodGet, "/info", a.info)
	rt.Handle(http.MethodGet, "/events", a.streamEvents)
	rt.Handle(http.MethodGet, "/images/json", a.listImages)
	rt.Handle(http.MethodPost, "/images/create", a.pullImage)
	rt.Handle(http.MethodPost, "/images/load", a.loadImage)
	rt.Handle(http.MethodGet, "/images/{name...}/json", a.inspectImage)
	rt.Handle(http.MethodPost, "/images/{name...}/tag", a.tagImage)
	rt.Handle(http.MethodDelete, "/images/{name...}", a.removeImage)
	rt.Handle(http.MethodGet, "/distribution/{name...}/json", a.distribution)
	rt.Handle(http.MethodGet, "/containers/json", a.listContainers)
	rt.Handle(http.MethodGet, "/containers/{id}/json", a.inspectContainer)
	rt.Handle(http.MethodGet, "/containers/{id}/logs", a.containerLogs)
	rt.Handle(http.MethodPost, "/containers/{id}/kill", a.killContainer)
	rt.Handle(http.MethodPost, "/containers/{id}/stop", a.stopContainer)
	a.mountStandalone(rt)
	rt.Handle(http.MethodGet, "/volumes", a.listVolumes)
	rt.Handle(http.MethodGet, "/plugins", a.listPlugins)
}
