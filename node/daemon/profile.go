package daemon

import (
	"net/http"
	"net/http/pprof"

	"shoal/control/dockerapi/wire"
)

// mountProfiles serves the Go profiles where dockerd has them too. The socket is
// for those who may do anything on the node already.
func mountProfiles(rt *wire.Router) {
	serve := func(h http.HandlerFunc) wire.Handler {
		return func(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
			h(w, r)
			return nil
		}
	}
	rt.Handle(http.MethodGet, "/debug/pprof/profile", serve(pprof.Profile))
	rt.Handle(http.MethodGet, "/debug/pprof/trace", serve(pprof.Trace))
	rt.Handle(http.MethodGet, "/debug/pprof/{name}", func(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
		pprof.Handler(vars["name"]).ServeHTTP(w, r)
		return nil
	})
}
