package wire

import (
	"io"
	"net/http"

	"github.com/moby/moby/api/types/swarm"
)

// SwarmHeader says in the words of the Swarm header of /_ping what part the
// node has in a cluster: inactive, pending, error, locked, active/worker or
// active/manager.
func SwarmHeader(info swarm.Info) string {
	if info.LocalNodeState != swarm.LocalNodeStateActive {
		return string(info.LocalNodeState)
	}
	if info.ControlAvailable {
		return "active/manager"
	}
	return "active/worker"
}

// Ping returns the handler of GET and HEAD /_ping, which every run of a client
// asks first. info must answer at once.
func Ping(info func() swarm.Info) Handler {
	return func(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
		h := w.Header()
		h.Set("Docker-Experimental", "false")
		h.Set("Builder-Version", "1") // not BuildKit: a client that would build asks /build, and is told
		h.Set("Swarm", SwarmHeader(info()))
		h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
		h.Set("Pragma", "no-cache")
		h.Set("Content-Type", "text/plain; charset=utf-8")
		if r.Method == http.MethodHead {
			h.Set("Content-Length", "0")
			return nil
		}
		_, err := io.WriteString(w, "OK")
		return err
	}
}

// HandlePing adds /_ping to a router.
func HandlePing(rt *Router, info func() swarm.Info) {
	rt.Handle(http.MethodGet, "/_ping", Ping(info))
	rt.Handle(http.MethodHead, "/_ping", Ping(info))
}
